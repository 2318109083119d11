"""How a suite's numbers were made: protocols, recipes, extractor, versions, cost."""

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hqdm_bench import __version__
from hqdm_bench.catalogue import Suite
from hqdm_bench.common.files import read_json
from hqdm_bench.report.results import CellResult, ResultSet
from hqdm_bench.report.table_notes import thousands

__all__ = ["Facts", "Provenance", "read_provenance"]

PACKAGES = ("torch", "numpy", "scipy")

# Field of a record -> what it is called on the page; fields not named here are shown as they are.
WORDS = {
    "steps": "DDIM steps",
    "eta": "eta",
    "guidance": "guidance scale",
    "labels": "labels",
    "order": "order of labels",
    "rounding": "rounding to uint8",
    "images": "images a cell",
    "seed": "seed of the draws",
    "reference": "reference",
    "reference_images": "reference images",
    "pr_reference_images": "reference images for precision and recall",
    "is_split": "images a split of IS",
    "pr_k": "neighbour k of precision and recall",
    "teacher_precision": "precision of the full-precision network",
    "trajectories": "training trajectories (epochs)",
    "pool": "cached trajectories",
    "batch": "images a batch",
    "lora_rank": "LoRA rank",
    "lora_lr_divisor": "LoRA rate: weight scale over",
    "weight_scale_lr": "rate of weight scales",
    "activation_lr": "rate of activation tables",
    "weight_decay": "weight decay",
    "calibration": "start of activation scales",
    "calibration_images": "images of calibration",
    "validation_trajectories": "held-out trajectories",
    "post_training_steps": "post-training: DDIM steps",
    "post_training_eta": "post-training: eta",
    "post_training_guidance": "post-training: guidance scale",
    "post_training_updates": "post-training: share of the released updates",
    "post_training_rates": "post-training: factor on the learning rates",
    "post_training_data": "post-training: share of the calibration images",
    "bootstrap": "bootstrap replicates",
    "trace_images": "images traced along the trajectory",
}


@dataclass(frozen=True)
class Facts:
    """A head, the columns behind it, and rows of a name and one text a column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Provenance:
    """What stands in the section on how the numbers were made.

    Attributes:
        extractors: (name, sha256) of the feature extractors behind the metrics.
        versions: name to version, of the environment that wrote the page or of `run.json`.
        commit: of the checkout, or empty.
        recorded: whether versions and commit were recorded with the run.
    """

    protocols: Facts | None
    recipes: Facts | None
    extractors: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    commit: str
    recorded: bool


def read_provenance(root: Path, suite: Suite, results: ResultSet) -> Provenance:
    """Collect what the results record about their making.

    Raises:
        BenchError: a ``run.json`` that is no JSON.
    """
    protocols: dict[str, Mapping[str, Any]] = {}
    recipes: dict[str, Mapping[str, Any]] = {}
    extractors: dict[tuple[str, str], None] = {}
    for result in results.results:
        _collect(result, protocols, recipes, extractors)
    record = root / "results" / suite.name / "run.json"
    if record.is_file():
        run = read_json(record)
        versions = {"python": run["python"], **run["packages"]}
        return _provenance(protocols, recipes, extractors, versions, run["commit"], recorded=True)
    versions = {"hqdm-bench": __version__} | {name: _version(name) for name in PACKAGES}
    return _provenance(protocols, recipes, extractors, versions, _commit(root), recorded=False)


def _collect(
    result: CellResult,
    protocols: dict[str, Mapping[str, Any]],
    recipes: dict[str, Mapping[str, Any]],
    extractors: dict[tuple[str, str], None],
) -> None:
    if result.metrics is not None:
        protocols.setdefault(result.cell.model, result.metrics["protocol"])
        extractor = result.metrics["extractor"]
        extractors[extractor["name"], extractor["sha256"]] = None
    if result.training is not None and "recipe" in result.training:
        recipes.setdefault(result.cell.model, _flat(result.training["recipe"]))


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with its settings of post-training methods one by one."""
    own = dict(recipe)
    settings = own.pop("post_training", None) or {}
    scale = settings.get("scale", {})
    found = {key: value for key, value in settings.items() if key != "scale"} | scale
    return own | {f"post_training_{key}": value for key, value in found.items()}


def _provenance(
    protocols: Mapping[str, Mapping[str, Any]],
    recipes: Mapping[str, Mapping[str, Any]],
    extractors: Mapping[tuple[str, str], None],
    versions: Mapping[str, str],
    commit: str,
    recorded: bool,
) -> Provenance:
    return Provenance(
        _facts("Sampling and scoring", protocols, ("name", "extractor", "shards")),
        _facts("Training", recipes, ("name",)),
        tuple(extractors),
        tuple(versions.items()),
        commit,
        recorded,
    )


def _facts(
    title: str, records: Mapping[str, Mapping[str, Any]], left_out: Sequence[str]
) -> Facts | None:
    if not records:
        return None
    names = dict.fromkeys(name for record in records.values() for name in record)
    rows = tuple(
        (WORDS.get(name, name), tuple(_text(record.get(name)) for record in records.values()))
        for name in names
        if name not in left_out
    )
    return Facts(title, tuple(records), rows)


def _text(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return thousands(value)
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _version(name: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return "not installed"


def _commit(root: Path) -> str:
    """Commit of the checkout, marked where files differ from it; empty outside of one."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
