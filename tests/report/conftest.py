"""A small project with results whose every number is known."""

from __future__ import annotations

import copy
import csv
import importlib
import pkgutil
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch

from hqdm_bench.catalogue import (
    Bits,
    Catalogue,
    Cell,
    Comparison,
    MethodSpec,
    ModelSpec,
    Protocol,
    Suite,
    SuiteModel,
)
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.common.files import atomic_path, write_json
from hqdm_bench.common.tensors import write_tensors
from hqdm_bench.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPOSITORY = Path(__file__).resolve().parents[2]
PROTOCOL = "quick"
LAYER = "input_blocks.3.1.transformer_blocks.0.ff.net.2"
OTHER = "middle_block.0.in_layers.2"

# (method, bits, seeds): FID by seed chosen so that means and intervals are easy by hand.
CELLS = (
    ("fp", "w32a32", (0,)),
    ("efficientdm", "w4a4", (0, 1, 2)),
    ("hqdm", "w4a4", (0, 1, 2)),
    ("efficientdm", "w8a3", (0,)),
    ("hqdm", "w8a3", (0,)),
    ("hqdm-k3", "w4a4", (0,)),
)
FID = {
    ("fp", "w32a32"): (0.5,),
    ("efficientdm", "w4a4"): (1.0, 2.0, 3.0),
    ("hqdm", "w4a4"): (0.5, 1.4, 2.6),
    ("efficientdm", "w8a3"): (4.0,),
    ("hqdm", "w8a3"): (3.0,),
    ("hqdm-k3", "w4a4"): (0.75,),
    ("dmq", "w4a8"): (9.5,),  # for tests that add the cell
}


def model_spec(name: str, dataset: str, source: str) -> ModelSpec:
    return ModelSpec(
        name=name,
        title=f"tiny {dataset}",
        paper_dataset=dataset,  # type: ignore[arg-type]
        source=source,  # type: ignore[arg-type]
        unet={},
        first_stage={},
        condition=None,
        scale_factor=1.0,
        beta_start=0.0015,
        beta_end=0.0195,
    )


def protocol(extractor: str, images: int) -> Protocol:
    return Protocol(
        name=PROTOCOL,
        steps=20,
        eta=0.0,
        guidance=1.5,
        labels="balanced",
        order="shuffled",
        rounding="nearest",
        images=images,
        batch=4,
        shards=2,
        seed=0,
        reference="scenes",
        reference_images=64,
        pr_reference_images=64,
        extractor=extractor,
        is_split=4,
    )


def coverage(bits: Bits, full: bool = False) -> dict[str, Any]:
    """Three quarters of the MACs low-bit under the official policy, all under the full one."""
    shares = {str(bits): (1.0, 1.0)}
    if not full:
        shares = {str(bits): (0.75, 0.9), "w8a8": (0.05, 0.04), "w32a32": (0.2, 0.06)}
    return {
        "by_bits": {
            name: {"mac_share": macs, "weight_share": weights}
            for name, (macs, weights) in shares.items()
        },
        "bops": 3_000_000_000 if full else 4_000_000_000,
        "weight_bytes": 1_000_000 if full else 2_000_000,
        "grid_bytes": 50_000,
    }


@dataclass
class Project:
    """A project folder, what its catalogue says, and the means to write results into it."""

    root: Path
    source: str = "embedded"
    extractor: str = "mini-classifier"
    images: int = 8
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shutil.copytree(REPOSITORY / "paper" / "data", self.root / "paper" / "data")
        titles = {
            "fp": "FP",
            "efficientdm": "EfficientDM",
            "hqdm": "HQ-DM",
            "hqdm-k3": "HQ-DM (k = 3)",
        }
        methods = {
            name: MethodSpec(name, title, name.split("-")[0], {}) for name, title in titles.items()
        }
        models = {name: model_spec(name, name, self.source) for name in ("imagenet", "bedrooms")}
        self.layout = Layout(self.root)
        self.protocol = protocol(self.extractor, self.images)
        cells = tuple(
            Cell("tiny", "imagenet", method, Bits.parse(bits), seed, PROTOCOL)
            for method, bits, seeds in CELLS
            for seed in seeds
        )
        self.suite = Suite(
            "tiny",
            self.extractor,
            (SuiteModel("imagenet", PROTOCOL, "recipe", cells),),
            self.figures,
            (1, 4),
        )
        self.catalogue = Catalogue(
            models, methods, {PROTOCOL: self.protocol}, {}, {}, {"tiny": self.suite}
        )

    def write_results(self) -> None:
        """Metrics, training summaries and histories of every cell."""
        for cell in self.suite.cells:
            self.write_metrics(cell)
            if not cell.bits.full_precision:
                self.write_training(cell)
                self.write_history(cell)

    def write_metrics(self, cell: Cell, **changes: Any) -> None:
        fid = FID[cell.method, str(cell.bits)][cell.seed]
        paired = {
            "latent_mse_mean": 0.5,
            "latent_mse_median": 0.02 * fid,
            "psnr_mean": 20.0,
            "psnr_median": 30.0 - fid,
        }
        content = {
            "cell": cell.asdict(),
            "protocol": self.protocol.asdict(),
            "extractor": {"name": self.extractor, "sha256": "0123456789abcdef" * 4},
            "images": self.images,
            "values": {
                "fid": fid,
                "sfid": 2 * fid,
                "is": 7.0 - fid,
                "precision": 0.75,
                "recall": 0.5,
            },
            "paired": None if cell.bits.full_precision else paired,
            "images_sha256": "0" * 64,
        }
        write_json(self.layout.metrics(cell), content | changes)

    def write_training(self, cell: Cell, **changes: Any) -> None:
        content = {
            "cell": cell.asdict(),
            "method": {"implementation": cell.method.split("-")[0]},
            "options": {"policy": "official"},
            "noise_error": 0.01 * FID[cell.method, str(cell.bits)][cell.seed],
            "coverage": coverage(cell.bits),
        }
        write_json(self.layout.training(cell), content | changes)

    def write_cost(self, cell: Cell, **changes: Any) -> None:
        content = {
            "cell": cell.asdict(),
            "seconds": {"1 calibrate": 1.5, "2 learn steps": 9.0},
            "cpu_seconds": 12.25,
            "peak_memory_mb": 812.4,
            "peak_gpu_memory_mb": None,
        }
        write_json(self.layout.cost(cell), content | changes)

    def write_history(self, cell: Cell, epochs: int = 3, steps: int = 2) -> None:
        """Loss 100 * seed + 10 * epoch + step."""
        with (
            atomic_path(self.layout.history(cell)) as path,
            path.open("w", newline="", encoding="utf-8") as handle,
        ):
            writer = csv.writer(handle)
            writer.writerow(("update", "epoch", "step", "timestep", "loss"))
            for update in range(epochs * steps):
                epoch, step = update // steps + 1, steps - 1 - update % steps
                loss = 100.0 * cell.seed + 10 * epoch + step
                writer.writerow((update + 1, epoch, step, 1 + 500 * step, loss))

    def write_outliers(self) -> None:
        """One channel of 64 stands out before the rotation, none after."""
        generator = np.random.default_rng(0)
        tensors = {}
        for layer in (LAYER, OTHER):
            for step in (0, 9):
                before = 1 + generator.random(64, dtype=np.float32)
                before[7] = 12.0
                tensors[f"{layer}/step{step}/before"] = torch.from_numpy(before)
                tensors[f"{layer}/step{step}/after"] = torch.from_numpy(before[::-1] * 0 + 2)
            weight = generator.standard_normal((16, 64), dtype=np.float32)
            tensors[f"{layer}/weight/before"] = torch.from_numpy(weight)
            tensors[f"{layer}/weight/after"] = torch.from_numpy(1.5 * weight)
        metadata = {"layers": [LAYER, OTHER], "steps": [0, 9], "timesteps": [1, 451], "order": 5}
        write_tensors(self.layout.outliers("tiny", "imagenet"), tensors, metadata)

    def write_samples(self, cell: Cell, first_label: int = 0) -> None:
        """Two shards of four images; image i is of the grey level 10 * i."""
        for shard in range(2):
            index = np.arange(4 * shard, 4 * shard + 4)
            path = self.layout.shard(cell, shard)
            with atomic_path(path) as temporary:
                np.savez(
                    temporary,
                    arr_0=np.repeat(10 * index, 8 * 8 * 3).reshape(4, 8, 8, 3).astype(np.uint8),
                    arr_1=index + first_label,
                    index=index,
                    latents=np.zeros((4, 3, 2, 2), np.float32),
                )

    def cell(self, method: str, bits: str, seed: int = 0) -> Cell:
        return self.suite.cell("imagenet", method, Bits.parse(bits), seed)


@dataclass
class StudyProject:
    """A suite that compares methods; every method's numbers are given seed by seed."""

    root: Path
    images: bool = True
    models: dict[str, float | None] = field(default_factory=lambda: {"small": None})
    bits: tuple[str, ...] = ("w4a4",)
    comparisons: tuple[Comparison, ...] = (Comparison("hqdm", ("hqdm-k3", "hqdm-all-low-bit")),)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: dict[str, tuple[int, ...]] = field(default_factory=dict)

    TITLES: ClassVar[dict[str, str]] = {
        "fp": "FP",
        "efficientdm": "EfficientDM",
        "hqdm": "HQ-DM",
        "hqdm-k3": "HQ-DM (k = 3)",
        "hqdm-all-low-bit": "HQ-DM (all layers)",
        "hqdm-plus": "HQ-DM+",
    }
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "efficientdm": {"policy": "official", "base": "dequantized"},
        "hqdm": {"policy": "official", "order": 5},
        "hqdm-k3": {"policy": "official", "order": 3},
        "hqdm-all-low-bit": {"policy": "full", "order": 5},
        "hqdm-plus": {"policy": "official", "order": 5, "signs": "random"},
    }

    def __post_init__(self) -> None:
        self.layout = Layout(self.root)
        self.protocol = protocol("mini-classifier", 384)

    @property
    def methods(self) -> tuple[str, ...]:
        named = [name for c in self.comparisons for name in (c.baseline, *c.methods)]
        return tuple(dict.fromkeys(named))

    @property
    def suite(self) -> Suite:
        def cells(model: str) -> tuple[Cell, ...]:
            found = [
                Cell("study", model, method, Bits.parse(bits), seed, PROTOCOL)
                for bits in self.bits
                for method in self.methods
                for seed in self.seeds.get(method, (0, 1, 2))
            ]
            return (Cell("study", model, "fp", Bits(32, 32), 0, PROTOCOL), *found)

        entries = tuple(
            SuiteModel(name, PROTOCOL, "recipe", cells(name), images=self.images)
            for name in self.models
        )
        compared = {"comparisons": self.comparisons}
        return Suite("study", "mini-classifier", entries, self.figures, (), **compared)

    @property
    def catalogue(self) -> Catalogue:
        models = {}
        for name, factor in self.models.items():
            outliers = None if factor is None else {"factor": factor}
            models[name] = replace(model_spec(name, "imagenet", "embedded"), outliers=outliers)
        methods = {
            name: MethodSpec(name, title, name.split("-")[0], {})
            for name, title in self.TITLES.items()
        }
        return Catalogue(models, methods, {PROTOCOL: self.protocol}, {}, {}, {})

    def write(self, method: str, noise: tuple[float, ...], fid: tuple[float, ...] = ()) -> None:
        """Results of a method on every model and bit-width, one number a seed."""
        for cell in self.suite.cells:
            if cell.method != method:
                continue
            place = self.seeds.get(method, (0, 1, 2)).index(cell.seed)
            content = {
                "cell": cell.asdict(),
                "method": {"implementation": method.split("-")[0]},
                "options": self.OPTIONS[method],
                "noise_error": noise[place],
                "coverage": coverage(cell.bits, self.OPTIONS[method]["policy"] == "full"),
            }
            write_json(self.layout.training(cell), content)
            if fid:
                write_json(self.layout.metrics(cell), self.metrics(cell, fid[place]))

    def metrics(self, cell: Cell, fid: float) -> dict[str, Any]:
        """Recall does not depend on FID; the others do in simple ways."""
        return {
            "cell": cell.asdict(),
            "protocol": self.protocol.asdict(),
            "extractor": {"name": "mini-classifier", "sha256": "0123456789abcdef" * 4},
            "values": {"fid": fid, "sfid": 2 * fid, "precision": 0.9 - 0.1 * fid, "recall": 0.5},
            "paired": {"psnr_median": 30.0 - fid, "latent_mse_median": 0.02 * fid},
        }


FIGURES: dict[str, dict[str, Any]] = {
    "fig02_layers": {
        "kind": "channel_maxima",
        "model": "imagenet",
        "layers": [LAYER, OTHER],
        "steps": [0, 9],
    },
    "fig03_schemes": {
        "kind": "hadamard_schemes",
        "model": "imagenet",
        "layer": LAYER,
        "step": 0,
    },
    "fig03c_weight": {"kind": "weight_rotation", "model": "imagenet", "layer": LAYER},
    "fig04_loss": {
        "kind": "loss_curve",
        "model": "imagenet",
        "step": 0,
        "bits": ["w4a4", "w8a3"],
        "methods": ["efficientdm", "hqdm"],
    },
    "fig11_samples": {
        "kind": "sample_grid",
        "model": "imagenet",
        "images": 6,
        "panels": [
            {"method": "fp", "bits": "w32a32", "seed": 0},
            {"method": "hqdm", "bits": "w4a4", "seed": 1},
        ],
    },
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Embedded models, mini features: another experiment than the paper's."""
    made = Project(tmp_path, figures=copy.deepcopy(FIGURES))
    made.write_results()
    return made


@pytest.fixture
def paper_project(tmp_path: Path) -> Project:
    """The paper's checkpoint, features and image count."""
    made = Project(tmp_path, source="checkpoint", extractor="inception", images=50_000)
    made.write_results()
    return made


@pytest.fixture
def drawn_project(project: Project) -> Project:
    """With everything figures need."""
    project.write_outliers()
    project.write_samples(project.cell("fp", "w32a32"))
    project.write_samples(project.cell("hqdm", "w4a4", 1))
    return project


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that would have been saved."""
    figures: list[Figure] = []

    def keep(figure: Figure, stem: Path, dpi: int = 0) -> tuple[Path, Path]:
        figures.append(figure)
        return stem, stem

    for module in pkgutil.iter_modules(plots.__path__):
        name = f"{plots.__name__}.{module.name}"
        if module.name != "style" and hasattr(importlib.import_module(name), "save_figure"):
            monkeypatch.setattr(f"{name}.save_figure", keep)
    return figures


NOISE = (0.01, 0.02, 0.04)
FIDS = (1.0, 2.0, 3.0)


@pytest.fixture
def study(tmp_path: Path) -> StudyProject:
    """HQ-DM, half its noise error at k = 3, and half as much again with every layer low-bit."""
    made = StudyProject(tmp_path)
    made.write("hqdm", NOISE, FIDS)
    # log2 ratios -1.1, -1, -0.9 and FID differences -0.5, -0.6, -0.4
    halves = tuple(value * 2**power for value, power in zip(NOISE, (-1.1, -1, -0.9), strict=True))
    made.write("hqdm-k3", halves, (0.5, 1.4, 2.6))
    made.write("hqdm-all-low-bit", tuple(1.5 * value for value in NOISE), (2.0, 2.0, 2.0))
    return made
