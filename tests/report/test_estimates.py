"""Means, intervals and verdicts."""

from __future__ import annotations

import math

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.estimates import Estimate, compare, estimate, verdict

T_TWO = 4.302652729749464  # 97.5 % quantile of Student's t with 2 degrees of freedom


def test_three_seeds() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(T_TWO / math.sqrt(3))
    assert found.n == 3


def test_one_seed_has_no_interval() -> None:
    assert estimate([1.5]) == Estimate(1.5, None, 1)


@pytest.mark.parametrize("values", [[math.nan], [1.0, math.inf]])
def test_values_must_be_finite(values: list[float]) -> None:
    with pytest.raises(BenchError, match="finite"):
        estimate(values)


def test_compare_pairs_the_shared_seeds() -> None:
    found = compare({0: 1.0, 1: 5.0, 7: 100.0}, {1: 4.0, 0: 3.0, 8: 0.0})
    assert found is not None
    assert (found.mean, found.n) == (-0.5, 2)
    assert compare({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("mean", "half_width", "higher_is_better", "word"),
    [
        (-0.5, 0.4, False, "A ahead"),
        (-0.5, 0.4, True, "B ahead"),
        (0.5, 0.4, False, "B ahead"),
        (0.5, 0.4, True, "A ahead"),
        (-0.5, 0.6, False, "inconclusive"),
        (0.5, 0.5, True, "inconclusive"),
        (-0.5, None, False, "inconclusive"),
        (0.0, 0.0, False, "inconclusive"),
        (0.1, 0.0, True, "A ahead"),
    ],
)
def test_verdicts_follow_the_direction(
    mean: float, half_width: float | None, higher_is_better: bool, word: str
) -> None:
    found = verdict(Estimate(mean, half_width, 3), higher_is_better, "A", "B")
    assert found == word
