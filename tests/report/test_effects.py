"""Paired effects: closed forms, directions, and what is refused."""

from __future__ import annotations

import math

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import BETTER, SAME, WORSE, paired_effect, span
from hqdm_bench.report.quantities import quantity

T_TWO = 4.302652729749464  # 97.5 % quantile of Student's t with 2 degrees of freedom
WIDTH = T_TWO * 0.1 / math.sqrt(3)  # of three values with standard deviation 0.1

FID, PRECISION, NOISE = quantity("fid"), quantity("precision"), quantity("noise_error")


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_difference_by_hand() -> None:
    found = paired_effect(FID, by_seed(0.5, 1.4, 2.6), by_seed(1.0, 2.0, 3.0))
    assert found.seeds == (0, 1, 2)
    assert (found.method.mean, found.against.mean) == pytest.approx((1.5, 2.0))
    assert found.change.mean == pytest.approx(-0.5)
    assert found.change.low == pytest.approx(-0.5 - WIDTH)
    assert found.change.high == pytest.approx(-0.5 + WIDTH)
    assert found.verdict == BETTER


def test_a_ratio_by_hand() -> None:
    against = by_seed(0.01, 0.02, 0.04)
    method = {seed: value * math.exp(0.1 * (seed - 1)) / 2 for seed, value in against.items()}
    found = paired_effect(NOISE, method, against)
    assert found.against.mean == pytest.approx(0.02)
    assert found.method.mean == pytest.approx(0.01)
    assert found.change.mean == pytest.approx(0.5)
    assert found.change.low == pytest.approx(0.5 * math.exp(-WIDTH))
    assert found.change.high == pytest.approx(0.5 * math.exp(WIDTH))
    assert found.verdict == BETTER


@pytest.mark.parametrize("kind", [FID, PRECISION, NOISE])
def test_the_verdict_turns_with_the_numbers(kind) -> None:
    low, high = by_seed(1.0, 1.1, 1.2), by_seed(2.0, 2.1, 2.3)
    first, second = paired_effect(kind, low, high), paired_effect(kind, high, low)
    good, bad = (second, first) if kind.higher_is_better else (first, second)
    assert (good.verdict, bad.verdict) == (BETTER, WORSE)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (FID, (1.2, 1.8, 3.1)),  # differences 0.2, -0.2, 0.1
        (NOISE, (1.2, 1.8, 3.1)),
        (FID, (1.0, 2.0, 3.0)),  # the same numbers
        (NOISE, (1.0, 2.0, 3.0)),
    ],
)
def test_an_interval_that_holds_no_change_is_no_difference(kind, method) -> None:
    assert paired_effect(kind, by_seed(*method), by_seed(1.0, 2.0, 3.0)).verdict == SAME


def test_a_difference_without_spread_is_called() -> None:
    found = paired_effect(FID, by_seed(1.5, 2.5), by_seed(1.0, 2.0))
    assert (found.change.low, found.change.high, found.verdict) == (0.5, 0.5, WORSE)


def test_only_shared_seeds_count() -> None:
    found = paired_effect(FID, {0: 1.0, 1: 5.0, 7: 100.0}, {1: 4.0, 0: 3.0, 8: 0.0})
    assert found.seeds == (0, 1)
    assert found.change.mean == -0.5
    assert found.against.mean == 3.5


@pytest.mark.parametrize("other", [{}, {1: 2.0}, {1: 2.0, 5: 1.0}])
def test_one_shared_seed_is_refused(other) -> None:
    with pytest.raises(BenchError, match=r"at least 2 shared seeds; one method has \[0, 1\]"):
        paired_effect(FID, by_seed(1.0, 2.0), other)


def test_geometric_means_need_positive_values() -> None:
    with pytest.raises(BenchError, match="positive values; got 1.0, 0.0"):
        span([1.0, 0.0], ratio=True)
    with pytest.raises(BenchError, match="positive"):
        span([1.0, math.nan], ratio=True)
    with pytest.raises(BenchError, match="finite"):
        span([1.0, math.inf], ratio=False)
    assert span([1.0, 4.0], ratio=True).mean == pytest.approx(2.0)
