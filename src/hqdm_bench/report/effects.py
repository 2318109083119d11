"""The effect of a choice: one quantity of two methods on the same training seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.intervals import student_interval
from hqdm_bench.report.quantities import Quantity

__all__ = ["BETTER", "SAME", "WORSE", "Effect", "Span", "paired_effect", "span"]

BETTER, WORSE, SAME = "better", "worse", "no difference seen"


@dataclass(frozen=True)
class Span:
    """A mean with the ends of its 95 % interval, which for a ratio lie unevenly about it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Effect:
    """One quantity of a method against another's, seed by seed.

    Attributes:
        seeds: those both methods have.
        method: mean over these seeds, in the shown unit; of a ratio's quantity the geometric one.
        against: the same for the other method.
        change: method minus against, or their ratio.
        verdict: better, worse, or no difference seen where the interval holds 0 (a ratio's: 1).
    """

    seeds: tuple[int, ...]
    method: Span
    against: Span
    change: Span
    verdict: str


def span(values: Sequence[float], ratio: bool) -> Span:
    """Mean and 95 % Student t interval of at least two values.

    Args:
        values: one per seed.
        ratio: take logarithms first and powers last: a geometric mean.

    Raises:
        BenchError: fewer than two values, one that is not finite, or, on logs, not positive.
    """
    if not ratio:
        found = student_interval(values)
        return Span(found.mean, found.low, found.high)
    if not all(value > 0 for value in values):
        raise BenchError(
            f"a geometric mean needs positive values; got {', '.join(map(str, values))}"
        )
    found = student_interval([math.log(value) for value in values])
    return Span(math.exp(found.mean), math.exp(found.low), math.exp(found.high))


def paired_effect(
    kind: Quantity, method: Mapping[int, float], against: Mapping[int, float]
) -> Effect:
    """Effect on the seeds both methods have, as a ratio where the quantity asks for one.

    Args:
        kind: the quantity.
        method: seed to value in the shown unit.
        against: the same for the other method.

    Raises:
        BenchError: fewer than two shared seeds; otherwise as `span`.
    """
    seeds = tuple(sorted(method.keys() & against.keys()))
    if len(seeds) < 2:
        raise BenchError(
            f"a paired comparison needs at least 2 shared seeds; one method has {sorted(method)}, "
            f"the other {sorted(against)}"
        )
    left, right = [method[seed] for seed in seeds], [against[seed] for seed in seeds]
    levels = span(left, kind.ratio), span(right, kind.ratio)
    pairs = zip(left, right, strict=True)
    change = span([a / b if kind.ratio else a - b for a, b in pairs], kind.ratio)
    return Effect(seeds, *levels, change, _verdict(kind, change))


def _verdict(kind: Quantity, change: Span) -> str:
    null = 1.0 if kind.ratio else 0.0
    if change.low <= null <= change.high:
        return SAME
    return BETTER if (change.mean > null) == kind.higher_is_better else WORSE
