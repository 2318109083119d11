"""Suites: what is selected from the catalogues, as a list of cells."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hqdm_bench.catalogue.bits import Bits
from hqdm_bench.common.errors import BenchError

__all__ = ["Baseline", "Cell", "Comparison", "Suite", "SuiteModel"]

STUDIES = ("differences", "comparison")  # reports of what a suite compares


@dataclass(frozen=True)
class Cell:
    """One trained student and its images: a point of the grid."""

    suite: str
    model: str
    method: str
    bits: Bits
    seed: int
    protocol: str

    def folder(self, root: Path) -> Path:
        """Where the student lives, ``results/{suite}/{model}/{method}/{bits}/seed{n}``."""
        return (
            root
            / "results"
            / self.suite
            / self.model
            / self.method
            / str(self.bits)
            / f"seed{self.seed}"
        )

    def evaluation(self, root: Path) -> Path:
        """Where its images and metrics live."""
        return self.folder(root) / self.protocol

    def asdict(self) -> dict[str, Any]:
        """Every field, bits as text."""
        return {**asdict(self), "bits": str(self.bits)}

    def __str__(self) -> str:
        return f"{self.suite}/{self.model}/{self.method}/{self.bits}/seed{self.seed}"


@dataclass(frozen=True)
class Baseline:
    """An image set of the full-precision model that says whether the set-up is right.

    Attributes:
        cell: the full-precision cell, under this baseline's protocol.
        expect: metric name to the (lowest, highest) value that others report under this protocol;
            shares in [0, 1]. Empty for a candidate of which nothing is known.
    """

    cell: Cell
    expect: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Comparison:
    """Methods whose results are set against those of one of them, seed by seed.

    Attributes:
        baseline: the method that is subtracted.
        methods: the others, in the order of their rows.
    """

    baseline: str
    methods: tuple[str, ...]


@dataclass(frozen=True)
class SuiteModel:
    """A suite's selection for one model.

    Attributes:
        images: whether its cells' images are drawn and scored; without them, students are trained
            and their noise error is the measure.
        baselines: full-precision image sets to check, or to compare protocols by.
        outliers: ``layers`` and step-table indices ``steps`` of the channel-maxima figures; empty
            for a model without such figures.
    """

    model: str
    protocol: str
    recipe: str
    cells: tuple[Cell, ...]
    outliers: dict[str, list[Any]] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()
    images: bool = True

    @property
    def students(self) -> tuple[Cell, ...]:
        """The cells that are trained."""
        return tuple(cell for cell in self.cells if cell.method != "fp")

    @property
    def scored(self) -> tuple[Cell, ...]:
        """The cells whose images are drawn and scored."""
        return self.cells if self.images else ()


@dataclass(frozen=True)
class Suite:
    """Everything one target of the DAG makes.

    Attributes:
        extractor: feature extractor of all its metrics.
        figures: file stem to figure entry (``kind`` and what it shows).
        tables: numbers of the paper's tables it fills.
        reports: tables of its own it fills, ``differences``, ``comparison`` or ``methods``.
        comparisons: what the first two set against what.
        engine: how students compute when they draw: ``fake``-quantized in floating point, or
            ``auto``, in int8 where that is exact; what was done is recorded with the images.
    """

    name: str
    extractor: str
    models: tuple[SuiteModel, ...]
    figures: dict[str, dict[str, Any]]
    tables: tuple[int, ...]
    reports: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    engine: Literal["fake", "auto"] = "fake"

    @property
    def studies(self) -> tuple[str, ...]:
        """The reports that set methods against a baseline."""
        return tuple(name for name in self.reports if name in STUDIES)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, models in order."""
        return tuple(cell for entry in self.models for cell in entry.cells)

    def model(self, name: str) -> SuiteModel:
        """The selection for one model.

        Raises:
            BenchError: the suite does not hold the model.
        """
        for entry in self.models:
            if entry.model == name:
                return entry
        held = ", ".join(entry.model for entry in self.models)
        raise BenchError(f"suite '{self.name}' has no model '{name}'; it holds: {held}")

    def cell(
        self, model: str, method: str, bits: Bits, seed: int, protocol: str | None = None
    ) -> Cell:
        """One cell of the suite.

        Args:
            model: catalogue name.
            method: catalogue name.
            bits: of its low-bit layers.
            seed: training seed.
            protocol: the suite's for this model if None; another one names a baseline.

        Raises:
            BenchError: the suite does not hold it.
        """
        entry = self.model(model)
        baselines = tuple(baseline.cell for baseline in entry.baselines)
        for cell in entry.cells + baselines:
            wanted = (method, bits, seed, protocol or entry.protocol)
            if (cell.method, cell.bits, cell.seed, cell.protocol) == wanted:
                return cell
        if protocol not in (None, entry.protocol):
            known = ", ".join(dict.fromkeys(cell.protocol for cell in baselines)) or "none"
            raise BenchError(
                f"suite '{self.name}' has no cell {model}/{method}/{bits}/seed{seed} under "
                f"protocol '{protocol}'; baselines of {model}: {known}"
            )
        held = sorted(
            {f"{cell.method}/{cell.bits}/seed{cell.seed}" for cell in self.model(model).cells}
        )
        raise BenchError(
            f"suite '{self.name}' has no cell {model}/{method}/{bits}/seed{seed}; for {model} it "
            f"holds {', '.join(held)}; add it to config/suites/{self.name}.yaml"
        )
