"""Results of a suite as read from disk; what tables, claims and notebooks work on."""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hqdm_bench.catalogue import Bits, Cell, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json, require_file
from hqdm_bench.report.arrays import read_arrays
from hqdm_bench.report.quantities import EXTRAS, METRICS, quantity

__all__ = [
    "CellResult",
    "LossHistory",
    "ResultSet",
    "common_protocol",
    "need",
    "read_cell",
    "read_history",
    "read_own",
]

HISTORY_COLUMNS = ("update", "epoch", "step", "timestep", "loss")


@dataclass(frozen=True)
class LossHistory:
    """Loss of every update, all arrays of the same length.

    Attributes:
        update: running number.
        epoch: trajectory the update belongs to.
        step: index in the step table, 0 being the last denoising step.
        timestep: t of that step.
        loss: distillation loss (the paper's eq. 12).
    """

    update: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]
    timestep: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]


@dataclass(frozen=True)
class CellResult:
    """What was read of one cell.

    Attributes:
        metrics: None where no images are drawn, or where it was not asked for.
        training: None for full precision; its ``cost`` has what ``cost.json`` adds.
        history: None for full precision, and where it was not asked for.
        replicates: (B,) bootstrap replicates by key, fractions as in the metrics; None where the
            protocol asks for none and where metrics were not asked for.
    """

    cell: Cell
    metrics: dict[str, Any] | None
    training: dict[str, Any] | None
    history: LossHistory | None
    replicates: Mapping[str, npt.NDArray[np.float64]] | None = None

    def value(self, key: str) -> float | None:
        """A stored quantity (fractions, not percent), None where the cell cannot have it.

        Raises:
            BenchError: the quantity is unknown or missing from the cell's files.
        """
        quantity(key)
        source: dict[str, Any] | None
        if key in METRICS or key in EXTRAS:
            source = self.metrics and self.metrics["values"]
        elif key == "noise_error":
            source = self.training
        else:
            source = self.metrics and self.metrics["paired"]
        if source is None:
            return None
        if key not in source:
            raise BenchError(
                f"results of {self.cell} have no '{key}'; delete the cell's json files and run "
                "again"
            )
        return float(source[key])


@dataclass(frozen=True)
class ResultSet:
    """Results of a suite, in the order of its cells."""

    suite: Suite
    results: tuple[CellResult, ...]

    @classmethod
    def load(cls, root: Path, suite: Suite, models: Collection[str] | None = None) -> Self:
        """Read metrics, training summary and history of every cell.

        Args:
            root: project folder, the one that holds ``results/``.
            suite: what to read.
            models: only cells of these models; None reads all.

        Raises:
            BenchError: a file is missing (named with the command that makes it), damaged, or
                belongs to another cell.
        """
        layout = Layout(root)
        cells = [cell for cell in suite.cells if models is None or cell.model in models]
        found = (read_cell(layout, cell, suite.model(cell.model).images) for cell in cells)
        return cls(suite, tuple(found))

    def select(
        self, model: str | None = None, method: str | None = None, bits: Bits | None = None
    ) -> tuple[CellResult, ...]:
        """Results that match every given field, sorted by seed within a method and bit-width."""
        found = [
            result
            for result in self.results
            if model in (None, result.cell.model)
            and method in (None, result.cell.method)
            and bits in (None, result.cell.bits)
        ]
        order: dict[tuple[str, str, Bits], int] = {}
        for result in found:
            order.setdefault(_row(result), len(order))
        return tuple(sorted(found, key=lambda result: (order[_row(result)], result.cell.seed)))

    def by_seed(self, model: str, method: str, bits: Bits, key: str) -> dict[int, float]:
        """A quantity per training seed; seeds that cannot have it are left out."""
        values = {
            result.cell.seed: result.value(key) for result in self.select(model, method, bits)
        }
        return {seed: value for seed, value in values.items() if value is not None}


def _row(result: CellResult) -> tuple[str, str, Bits]:
    return result.cell.model, result.cell.method, result.cell.bits


def need(root: Path, path: Path) -> Path:
    """Return ``path`` if it exists.

    Raises:
        BenchError: it does not; the message gives the command that makes it.
    """
    if path.is_file():
        return path
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    raise BenchError(f"{shown} does not exist; `snakemake {shown}` makes it")


def read_history(path: Path) -> LossHistory:
    """Read a history.csv.

    Raises:
        BenchError: the file is missing, has other columns, or holds a loss that is not finite.
    """
    with require_file(path).open(newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))
    if not rows or tuple(rows[0]) != HISTORY_COLUMNS:
        raise BenchError(
            f"{path} has columns {','.join(rows[0]) if rows else '(none)'}; expected "
            f"{','.join(HISTORY_COLUMNS)}; delete it and run again"
        )
    try:
        table = np.array(rows[1:], dtype=np.float64).reshape(-1, len(HISTORY_COLUMNS))
    except ValueError as error:
        raise BenchError(f"{path} is damaged ({error}); delete it and run again") from error
    if not np.isfinite(table).all():
        line = 2 + int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise BenchError(f"{path}, line {line}: not a finite number; the training diverged")
    update, epoch, step, timestep = table[:, :4].astype(np.int64).T
    return LossHistory(update, epoch, step, timestep, table[:, 4])


def read_cell(
    layout: Layout, cell: Cell, with_metrics: bool = True, with_history: bool = True
) -> CellResult:
    """Read one cell; its metrics and history only where asked for.

    Raises:
        BenchError: as `ResultSet.load`.
    """
    metrics = read_own(layout, layout.metrics(cell), cell) if with_metrics else None
    replicates = _read_replicates(layout, cell, metrics or {})
    if cell.bits.full_precision:
        return CellResult(cell, metrics, None, None, replicates)
    training = _read_training(layout, cell)
    history = read_history(need(layout.root, layout.history(cell))) if with_history else None
    return CellResult(cell, metrics, training, history, replicates)


def _read_training(layout: Layout, cell: Cell) -> dict[str, Any]:
    """Training record, its ``cost`` with time and memory where a run has kept them."""
    training = read_own(layout, layout.training(cell), cell)
    if layout.cost(cell).exists():
        spent = read_own(layout, layout.cost(cell), cell)
        del spent["cell"]
        training["cost"] = training.get("cost", {}) | spent
    return training


def _read_replicates(
    layout: Layout, cell: Cell, metrics: dict[str, Any]
) -> dict[str, npt.NDArray[np.float64]] | None:
    """Replicates behind a cell's metrics, None for metrics without."""
    count = metrics.get("protocol", {}).get("bootstrap", 0)
    if not count:
        return None
    path = need(layout.root, layout.replicates(cell))
    arrays, _ = read_arrays(path)
    if any(array.shape != (count,) for array in arrays.values()):
        raise BenchError(
            f"{path} does not hold {count} replicates of each metric, as {layout.metrics(cell)} "
            "says; delete both and run again"
        )
    return arrays


def common_protocol(results: Sequence[CellResult]) -> tuple[dict[str, Any], dict[str, str]]:
    """Protocol and extractor that all results share.

    Raises:
        BenchError: two results differ in either, so that their numbers cannot stand in one table,
            or one has no metrics.
    """
    scored = []
    for result in results:
        if result.metrics is None:
            raise BenchError(
                f"suite '{result.cell.suite}' draws no images of {result.cell.model}; set "
                f"'images: true' in config/suites/{result.cell.suite}.yaml"
            )
        scored.append((result.cell, result.metrics))
    first_cell, first = scored[0]
    for cell, metrics in scored[1:]:
        for key in ("protocol", "extractor"):
            if metrics[key] != first[key]:
                raise BenchError(
                    f"{cell} and {first_cell} were scored under different {key}s; delete the "
                    "older metrics.json and run again"
                )
    return first["protocol"], first["extractor"]


def read_own(layout: Layout, path: Path, cell: Cell) -> dict[str, Any]:
    """Read a cell's JSON file and refuse one that was written for another cell."""
    content = read_json(need(layout.root, path))
    if not isinstance(content, dict) or content.get("cell") != cell.asdict():
        raise BenchError(f"{path} was not written for cell {cell}; delete it and run again")
    return content
