"""Uncertainty over training seeds, and over images where there is one seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from hqdm_bench.common.errors import BenchError

__all__ = [
    "Interval",
    "basic_interval",
    "interval_at_count",
    "paired_interval",
    "student_interval",
]


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided confidence interval, mean +- half_width.

    Attributes:
        mean: over n values.
        half_width: half the length of the interval, in the unit of the values.
        n: number of values.
    """

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width


def student_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student-t interval of a mean: t_{n-1} s / sqrt(n), s with n - 1 in the denominator.

    Args:
        values: one per seed, at least two.
        level: probability of the interval.

    Raises:
        BenchError: fewer than two values, a value that is not finite, or a level outside (0, 1).
    """
    n = len(values)
    if n < 2:
        raise BenchError(f"an interval needs at least 2 seeds; there are {n}")
    if not 0 < level < 1:
        raise BenchError(f"the level of an interval lies between 0 and 1; it is {level}")
    if not all(math.isfinite(value) for value in values):
        raise BenchError("an interval over seeds needs finite values; one is not")
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    quantile = float(stdtrit(n - 1, (1 + level) / 2))
    return Interval(mean, quantile * math.sqrt(variance / n), n)


def paired_interval(
    first: Mapping[int, float], second: Mapping[int, float], level: float = 0.95
) -> Interval:
    """Student-t interval of the difference ``first`` - ``second`` of two methods, seed by seed.

    What a seed does to both methods alike cancels, which two intervals apart cannot show.

    Args:
        first: seed to value.
        second: seed to value, same seeds.
        level: probability of the interval.

    Raises:
        BenchError: the seeds differ; otherwise as `student_interval`.
    """
    if set(first) != set(second):
        raise BenchError(
            f"a paired difference needs the same seeds; one method has {sorted(first)}, the other "
            f"{sorted(second)}"
        )
    return student_interval([first[seed] - second[seed] for seed in sorted(first)], level)


def basic_interval(
    value: float, replicates: Sequence[float] | npt.NDArray[np.float64], level: float = 0.95
) -> tuple[float, float]:
    """Basic bootstrap interval [2 v - q_hi, 2 v - q_lo] of a value v, q being quantiles.

    Replicates lie around the value as the value lies around the truth (Davison and Hinkley 1997,
    Eq. 5.6). So a bias that drawing images causes is taken off, which the percentile interval
    [q_lo, q_hi] adds once more. For a difference of two methods on the same draws, pass the
    difference of their values and of their replicates.

    Args:
        value: measured on all images.
        replicates: (B,) measured on drawn ones, at least two.
        level: probability of the interval.

    Returns:
        Lower and upper end; they need not be at equal distances from the value.

    Raises:
        BenchError: fewer than two replicates, a value that is not finite, or a level outside
            (0, 1).
    """
    drawn = np.asarray(replicates, dtype=np.float64)
    if drawn.ndim != 1 or len(drawn) < 2:
        raise BenchError(f"an interval needs at least 2 replicates; there are {drawn.size}")
    if not 0 < level < 1:
        raise BenchError(f"the level of an interval lies between 0 and 1; it is {level}")
    if not (math.isfinite(value) and np.isfinite(drawn).all()):
        raise BenchError("an interval over replicates needs finite values; one is not")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return 2 * value - float(high), 2 * value - float(low)


def interval_at_count(
    value: float, replicates: Sequence[float] | npt.NDArray[np.float64], level: float = 0.95
) -> tuple[float, float]:
    """Basic bootstrap interval of a metric at its own number of images.

    A Frechet distance is compared at equal numbers of images, with the bias c / N of that number
    in it, and so it is printed. The basic interval takes that bias off: it holds the distance of
    infinitely many images and may leave out the value it belongs to. Here the replicates are moved
    until their mean is the value, which takes off only what drawing again has added. Where drawing
    adds no bias the two agree.

    Args:
        value: measured on all images.
        replicates: (B,) measured on drawn ones, at least two.
        level: probability of the interval.

    Raises:
        BenchError: as `basic_interval`.
    """
    drawn = np.asarray(replicates, dtype=np.float64)
    shift = value - float(drawn.mean()) if drawn.size else 0.0
    return basic_interval(value, drawn + shift, level)
