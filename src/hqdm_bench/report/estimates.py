"""Estimates with their intervals: over training seeds, or over the images of a single one.

Where a quantity has two training seeds or more, its interval is Student's t over the seeds. Where
it has one, the interval can only hold what drawing other images would change: it comes from
bootstrap replicates of that seed's image set. Replicate b of every cell resamples the same image
numbers, so a function of several cells (a difference, a ratio) is taken replicate by replicate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.intervals import interval_at_count, student_interval

__all__ = [
    "IMAGES",
    "LEVEL",
    "SEEDS",
    "Draws",
    "Estimate",
    "PairedDifference",
    "Sample",
    "Source",
    "compare",
    "estimate",
    "itself",
    "verdict",
]

LEVEL = 0.95
Source = Literal["seeds", "images"]
SEEDS: Source = "seeds"
IMAGES: Source = "images"


@dataclass(frozen=True)
class Draws:
    """A quantity of one training seed.

    Attributes:
        value: on all images.
        replicates: (B,) the same on resampled images; None if it was not bootstrapped.
    """

    value: float
    replicates: npt.NDArray[np.float64] | None = None


Sample = Mapping[int, Draws]  # by training seed
# Of one value a sample, or of one array of replicates a sample, which it treats elementwise.
Function = Callable[..., Any]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        mean: over n training seeds; the value itself for n = 1.
        low: lower end of the interval, None where there is none.
        high: upper end.
        n: number of training seeds.
        source: what the interval is over, None where there is none.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    source: Source | None

    @property
    def half_width(self) -> float | None:
        """Of an interval over seeds, which is symmetric; None for any other."""
        if self.source != SEEDS or self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies above or below zero, 0 where it cannot tell."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class PairedDifference:
    """One quantity of two methods on the same seeds.

    Attributes:
        left: method whose value comes first in the difference.
        right: method that is subtracted.
        left_title: as printed.
        right_title: as printed.
        key: the quantity.
        difference: left minus right, in the shown unit.
        verdict: ``<title> ahead``, or ``inconclusive`` where the interval holds zero or there is
            none.
    """

    left: str
    right: str
    left_title: str
    right_title: str
    bits: Bits
    key: str
    difference: Estimate
    verdict: str


def estimate(function: Function, *samples: Sample, level: float = LEVEL) -> Estimate | None:
    """A function of one or more samples over the seeds they all have.

    Args:
        function: of one number per sample; given arrays of equal length it works elementwise.
        samples: in the order of the function's arguments.
        level: probability of the interval.

    Returns:
        None if the samples share no seed.

    Raises:
        BenchError: a value is not finite, or replicates do not belong together.
    """
    shared = sorted(set.intersection(*(set(sample) for sample in samples)))
    if not shared:
        return None
    values = [float(function(*(sample[seed].value for sample in samples))) for seed in shared]
    if not all(map(math.isfinite, values)):
        raise BenchError("a table needs finite values; one is not")
    if len(values) > 1:
        found = student_interval(values, level)
        return Estimate(found.mean, found.low, found.high, found.n, SEEDS)
    drawn = [sample[shared[0]].replicates for sample in samples]
    replicates = [one for one in drawn if one is not None]
    if len(replicates) < len(drawn):
        return Estimate(values[0], None, None, 1, None)
    if len({len(one) for one in replicates}) > 1:
        raise BenchError("cells were bootstrapped with different counts; score them again")
    low, high = _over_images(values[0], np.asarray(function(*replicates), np.float64), level)
    return Estimate(values[0], low, high, 1, IMAGES)


def itself(value: Any) -> Any:
    """The function that leaves a sample as it is."""
    return value


def compare(left: Sample, right: Sample) -> Estimate | None:
    """Difference left minus right, seed by seed; None if they share no seed."""
    return estimate(lambda a, b: a - b, left, right)


def verdict(difference: Estimate, higher_is_better: bool, left_title: str, right_title: str) -> str:
    """Who is ahead, judged by whether the interval of the difference holds zero."""
    if difference.sign == 0:
        return "inconclusive"
    left_ahead = (difference.sign > 0) == higher_is_better
    return f"{left_title if left_ahead else right_title} ahead"


def _over_images(
    value: float, replicates: npt.NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Basic interval at the number of images; tails too thin for the replicates are a normal one's.

    Every number here is one at that number of images, so the bias of a Fréchet distance stays.
    """
    low, high = interval_at_count(value, replicates, level)
    tail = (1 - level) / 2
    if len(replicates) * tail < 1:
        reach = float(ndtri(1 - tail)) * float(replicates.std(ddof=1))
        low, high = value - reach, value + reach
    return low, high
