"""Results made up in memory, to grade the paper's sentences on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hqdm_bench.catalogue import Bits, Catalogue, Cell, MethodSpec, ModelSpec, Suite, SuiteModel
from hqdm_bench.report.claims.grading import Judged, grade_material
from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.printed import PaperTables
from hqdm_bench.report.claims.specs import Claim, read_claims
from hqdm_bench.report.results import CellResult, LossHistory, ResultSet

ROOT = Path(__file__).resolve().parents[3]
TITLES = {
    "fp": "FP",
    "efficientdm": "EfficientDM",
    "hqdm": "HQ-DM",
    "hqdm-k3": "HQ-DM (k = 3)",
    "hqdm-k4": "HQ-DM (k = 4)",
    "hqdm-k6": "HQ-DM (k = 6)",
}


OTHERWISE = dict.fromkeys(("is", "fid", "sfid", "precision", "recall"), 0.5)


def model_spec(dataset: str, source: str) -> ModelSpec:
    return ModelSpec(
        name=f"some-{dataset}",
        title=dataset,
        paper_dataset=dataset,  # type: ignore[arg-type]
        source=source,  # type: ignore[arg-type]
        unet={},
        first_stage={},
        condition=None,
        scale_factor=1.0,
        beta_start=0.0015,
        beta_end=0.0195,
    )


def loss_history(losses: Sequence[float]) -> LossHistory:
    """One loss an epoch at step 0, after one at step 1 that nobody reads."""
    epochs = np.repeat(np.arange(1, len(losses) + 1), 2)
    steps = np.tile([1, 0], len(losses))
    loss = np.ravel([(999.0, loss) for loss in losses]).astype(np.float64)
    return LossHistory(np.arange(1, len(loss) + 1), epochs, steps, 500 * steps + 1, loss)


@functools.cache
def paper() -> tuple[tuple[Claim, ...], PaperTables]:
    """The sentences and tables of the project, read once."""
    return read_claims(ROOT), PaperTables.read(ROOT)


@dataclass
class World:
    """A suite that grows row by row.

    Attributes:
        papers: whether it is the paper's own experiment.
    """

    root: Path
    papers: bool = False
    results: list[CellResult] = field(default_factory=list)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        dataset: str,
        method: str,
        bits: str,
        *seeds: Mapping[str, float],
        noise: Mapping[str, np.ndarray] | None = None,
        losses: Sequence[Sequence[float]] = (),
        coverage: Mapping[str, Any] | None = None,
        growth: Sequence[Sequence[float]] = (),
        engines: Sequence[Mapping[str, str] | None] = (),
    ) -> World:
        """One row.

        Args:
            dataset: imagenet, bedrooms or churches.
            method: catalogue name.
            bits: as in w4a4.
            seeds: values of each training seed, percentages as fractions; others are 0.5.
            noise: what replicates add to a value, by metric.
            losses: by seed, one an epoch.
            coverage: of training.json.
            growth: by seed, latent errors along the trajectory.
            engines: by seed, how the student drew.
        """
        full = method == "fp"
        for seed, values in enumerate(seeds):
            paired: dict[str, Any] = {"latent_mse_median": values.get("latent_mse_median", 1.0)}
            if growth:
                paired["growth"] = [{"latent_mse_mean": error} for error in growth[seed]]
            metrics = {
                "values": OTHERWISE | dict(values),
                "paired": None if full else paired,
                "protocol": {"images": 50_000 if self.papers else 384},
                "extractor": {"name": "inception" if self.papers else "mini-classifier"},
                "engine": engines[seed] if engines else None,
            }
            training = {"coverage": coverage or {"by_bits": {}}, "noise_error": 0.1}
            drawn = {key: values[key] + part for key, part in (noise or {}).items()}
            cell = Cell("made-up", f"some-{dataset}", method, Bits.parse(bits), seed, "quick")
            self.results.append(
                CellResult(
                    cell=cell,
                    metrics=metrics,
                    training=None if full else training,
                    history=loss_history(losses[seed]) if losses else None,
                    replicates=drawn or None,
                )
            )
        return self

    @property
    def material(self) -> Material:
        cells: dict[str, list[Cell]] = {}
        for result in self.results:
            cells.setdefault(result.cell.model, []).append(result.cell)
        models = tuple(
            SuiteModel(model, "quick", "recipe", tuple(found)) for model, found in cells.items()
        )
        source = "checkpoint" if self.papers else "embedded"
        specs = [model_spec(d, source) for d in ("imagenet", "bedrooms", "churches")]
        methods = {name: MethodSpec(name, title, name, {}) for name, title in TITLES.items()}
        extractor = "inception" if self.papers else "mini-classifier"
        suite = Suite("made-up", extractor, models, self.figures, (1, 2, 3, 4))
        catalogue = Catalogue({one.name: one for one in specs}, methods, {}, {}, {}, {})
        return Material(self.root, suite, catalogue, ResultSet(suite, tuple(self.results)))

    def judged(self) -> dict[str, Judged]:
        """Every sentence of the paper, by id."""
        found = grade_material(*paper(), self.material)
        return {one.claim.id: one for one in found}

    def judge(self, name: str) -> Judged:
        """One sentence."""
        return self.judged()[name]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Embedded models: only directions can be graded."""
    return World(tmp_path)


@pytest.fixture
def papers_world(tmp_path: Path) -> World:
    """The paper's own experiment."""
    return World(tmp_path, papers=True)


@pytest.fixture
def history() -> Callable[[Sequence[float]], LossHistory]:
    """A history from the losses at step 0."""
    return loss_history


@pytest.fixture
def root() -> Path:
    """The project, whose paper/ is read."""
    return ROOT
