"""Means over training seeds and paired differences between two methods."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.intervals import student_interval

__all__ = ["Estimate", "PairedDifference", "compare", "estimate", "verdict"]


@dataclass(frozen=True)
class Estimate:
    """Mean of n values with the half-width of its 95 % Student t interval; None for n = 1."""

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """One quantity of two methods on the same seeds.

    Attributes:
        left: method whose value comes first in the difference.
        right: method that is subtracted.
        left_title: as printed.
        right_title: as printed.
        key: the quantity.
        difference: left minus right, seed by seed, in the shown unit.
        verdict: ``<title> ahead``, or ``inconclusive`` where the interval holds zero or a single
            seed gives none.
    """

    left: str
    right: str
    left_title: str
    right_title: str
    bits: Bits
    key: str
    difference: Estimate
    verdict: str


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % Student t half-width of at least one value.

    Raises:
        BenchError: a value is not finite.
    """
    if len(values) > 1:
        interval = student_interval(values)
        return Estimate(interval.mean, interval.half_width, interval.n)
    if not math.isfinite(values[0]):
        raise BenchError("a table needs finite values; one is not")
    return Estimate(values[0], None, 1)


def compare(left: Mapping[int, float], right: Mapping[int, float]) -> Estimate | None:
    """Difference left minus right over the seeds both have; None if they share none."""
    shared = sorted(left.keys() & right.keys())
    return estimate([left[seed] - right[seed] for seed in shared]) if shared else None


def verdict(difference: Estimate, higher_is_better: bool, left_title: str, right_title: str) -> str:
    """Who is ahead, judged by whether the interval of the difference holds zero."""
    if difference.half_width is None or abs(difference.mean) <= difference.half_width:
        return "inconclusive"
    left_ahead = (difference.mean > 0) == higher_is_better
    return f"{left_title if left_ahead else right_title} ahead"
