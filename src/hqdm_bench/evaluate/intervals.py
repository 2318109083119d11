"""Uncertainty over training seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from hqdm_bench.common.errors import BenchError

__all__ = ["Interval", "paired_interval", "student_interval"]


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
