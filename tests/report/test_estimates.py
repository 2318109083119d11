"""Estimates, their intervals over seeds or images, and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.estimates import (
    IMAGES,
    SEEDS,
    Draws,
    Estimate,
    Sample,
    compare,
    estimate,
    itself,
    verdict,
)

T_TWO = 4.302652729749464  # 97.5 % quantile of Student's t with 2 degrees of freedom


def seeds(*values: float) -> Sample:
    return {seed: Draws(value) for seed, value in enumerate(values)}


def drawn(value: float, replicates: np.ndarray) -> Sample:
    return {0: Draws(value, np.asarray(replicates, np.float64))}


def test_three_seeds() -> None:
    found = estimate(itself, seeds(1.0, 2.0, 3.0))
    assert found is not None
    assert (found.mean, found.n, found.source) == (2.0, 3, SEEDS)
    assert found.half_width == pytest.approx(T_TWO / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((2 - found.half_width, 2 + found.half_width))


def test_one_seed_without_replicates_has_no_interval() -> None:
    assert estimate(itself, seeds(1.5)) == Estimate(1.5, None, None, 1, None)


def test_one_seed_has_the_interval_of_its_images() -> None:
    # 0.1 and 3.9 are the 2.5 % and 97.5 % quantiles of 0, 0.04, ... 4; moved by 1.5 - 2.
    found = estimate(itself, drawn(1.5, np.linspace(0, 4, 101)))
    assert found is not None
    assert (found.mean, found.n, found.source, found.half_width) == (1.5, 1, IMAGES, None)
    assert (found.low, found.high) == pytest.approx((2 * 1.5 - 3.4, 2 * 1.5 + 0.4))


def test_several_seeds_do_not_use_their_replicates() -> None:
    wild = np.linspace(-100, 100, 50)
    bare = estimate(itself, seeds(1.0, 2.0))
    assert estimate(itself, {0: Draws(1.0, wild), 1: Draws(2.0, wild)}) == bare


def test_a_difference_of_images_is_paired() -> None:
    common = np.random.default_rng(0).normal(size=400)  # moves both sides alike
    left, right = drawn(5.0, 5 + common), drawn(4.0, 4 + common)
    found = compare(left, right)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1.0, 1.0))
    shuffled = compare(left, drawn(4.0, 4 + common[::-1]))
    assert shuffled is not None
    assert shuffled.low is not None
    assert shuffled.low < 0


def test_any_function_of_several_samples() -> None:
    left, right = seeds(2.0, 6.0, 3.0), seeds(1.0, 2.0, 1.0)
    found = estimate(lambda a, b: a / b, left, right)
    assert found is not None
    assert found.mean == pytest.approx((2 + 3 + 3) / 3)  # of the ratios, not of the sums
    many = estimate(lambda a, b, c: a - b - c, left, right, seeds(1.0))
    assert many == Estimate(0.0, None, None, 1, None)


def test_only_shared_seeds_count() -> None:
    left = {0: Draws(1.0), 1: Draws(5.0), 7: Draws(100.0)}
    found = compare(left, {1: Draws(4.0), 0: Draws(3.0), 8: Draws(0.0)})
    assert found is not None
    assert (found.mean, found.n) == (-0.5, 2)
    assert compare(seeds(1.0), {1: Draws(1.0)}) is None


def test_one_side_without_replicates_leaves_no_interval() -> None:
    found = compare(drawn(1.0, np.ones(10)), seeds(0.0))
    assert found == Estimate(1.0, None, None, 1, None)


def test_a_stricter_level_widens_both_kinds() -> None:
    values = np.random.default_rng(1).normal(size=100)
    for sample in (seeds(1.0, 2.0, 4.0), drawn(0.0, values)):
        usual, strict = estimate(itself, sample), estimate(itself, sample, level=0.999)
        assert usual is not None
        assert strict is not None
        assert strict.low < usual.low < usual.high < strict.high


def test_tails_beyond_the_replicates_are_normal() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, size=200)
    found = estimate(itself, drawn(1.0, values), level=0.999)  # 0.1 replicates in each tail
    assert found is not None
    reach = 3.290526731491926 * values.std(ddof=1)
    assert (found.low, found.high) == pytest.approx((1 - reach, 1 + reach))


@pytest.mark.parametrize("values", [[math.nan], [1.0, math.inf]])
def test_values_must_be_finite(values: list[float]) -> None:
    with pytest.raises(BenchError, match="finite"):
        estimate(itself, seeds(*values))


def test_replicates_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(BenchError, match="different counts"):
        compare(drawn(1.0, np.ones(10)), drawn(1.0, np.ones(11)))
    with pytest.raises(BenchError, match="finite"):
        estimate(itself, drawn(1.0, np.array([1.0, math.nan, 2.0])))
    with pytest.raises(BenchError, match="at least 2"):
        estimate(itself, drawn(1.0, np.ones(1)))


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "word"),
    [
        (-0.9, -0.1, False, "A ahead"),
        (-0.9, -0.1, True, "B ahead"),
        (0.1, 0.9, False, "B ahead"),
        (0.1, 0.9, True, "A ahead"),
        (-1.1, 0.1, False, "inconclusive"),
        (0.0, 1.0, True, "inconclusive"),
        (None, None, False, "inconclusive"),
        (0.0, 0.0, False, "inconclusive"),
        (0.1, 0.1, True, "A ahead"),
    ],
)
def test_verdicts_follow_the_direction(
    low: float | None, high: float | None, higher_is_better: bool, word: str
) -> None:
    found = verdict(Estimate(0.5, low, high, 3, SEEDS), higher_is_better, "A", "B")
    assert found == word
