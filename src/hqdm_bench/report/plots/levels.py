"""Quantities of a method over its bit-widths, with intervals and cost, for the quality figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hqdm_bench.catalogue import Bits, Cell, Layout
from hqdm_bench.report.estimates import Estimate, estimate
from hqdm_bench.report.footprint import Footprint, footprint
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.results import CellResult, read_cell
from hqdm_bench.report.samples import sample
from hqdm_bench.report.study import STUDENT_KEYS

__all__ = ["Curve", "ModelCurves", "Point", "level", "read_curve"]


@dataclass(frozen=True)
class Point:
    """One method at one bit-width.

    Attributes:
        bits: of its low-bit layers.
        levels: quantity -> estimate in the shown unit; full precision lacks those that compare
            with it.
        cost: None for full precision.
    """

    bits: Bits
    levels: Mapping[str, Estimate]
    cost: Footprint | None


@dataclass(frozen=True)
class Curve:
    """A method's points, in the order of the suite's cells."""

    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class ModelCurves:
    """Every method on one model, full precision under ``fp``."""

    title: str
    curves: Mapping[str, Curve]

    @property
    def students(self) -> dict[str, Curve]:
        """The curves of the quantized methods."""
        return {method: curve for method, curve in self.curves.items() if method != "fp"}

    def full_precision(self, key: str) -> float | None:
        """The full-precision model's value; None where it has none."""
        curve = self.curves.get("fp")
        found = curve.points[0].levels.get(key) if curve else None
        return None if found is None else found.mean


def read_curve(layout: Layout, cells: Sequence[Cell], keys: Sequence[str]) -> tuple[Point, ...]:
    """The points of one method on one model.

    Args:
        layout: where results lie.
        cells: of one model and method, any bit-widths and seeds.
        keys: quantities.

    Raises:
        BenchError: a result is missing, damaged or another cell's, or lacks a quantity.
    """
    of_images = bool(set(keys) - set(STUDENT_KEYS))
    widths: dict[Bits, list[CellResult]] = {}
    for cell in cells:
        result = read_cell(layout, cell, of_images, with_history=False)
        widths.setdefault(cell.bits, []).append(result)
    points = []
    for bits, results in widths.items():
        found = {key: level(results, key) for key in keys}
        levels = {key: one for key, one in found.items() if one is not None}
        points.append(Point(bits, levels, footprint(results)))
    return tuple(points)


def level(results: Sequence[CellResult], key: str) -> Estimate | None:
    """Mean of a quantity in the shown unit, geometric where it is skewed; None if no result has it.

    Raises:
        BenchError: a value that no interval can hold.
    """
    found = sample(results, key)
    if not quantity(key).ratio:
        return estimate(lambda value: value, found) if found else None
    logarithm = estimate(np.log, found) if found else None
    return logarithm and _exp(logarithm)


def _exp(found: Estimate) -> Estimate:
    low, high = (None if end is None else float(np.exp(end)) for end in (found.low, found.high))
    return replace(found, mean=float(np.exp(found.mean)), low=low, high=high)
