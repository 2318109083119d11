import math
import subprocess
import sys

import pytest
from scipy import stats

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.intervals import paired_interval, student_interval


def test_two_values_have_a_closed_form():
    """With one degree of freedom Student's t is Cauchy: its 97.5 % quantile is tan(0.475 pi)."""
    found = student_interval([1.0, 3.0])
    assert found.mean == 2
    assert found.half_width == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert (found.low, found.high) == (2 - found.half_width, 2 + found.half_width)
    assert found.n == 2


def test_three_values_have_a_closed_form():
    """With two degrees of freedom the quantile of p is (2p - 1) / sqrt(2 p (1 - p))."""
    quantile = 0.95 / math.sqrt(2 * 0.975 * 0.025)
    found = student_interval([1.0, 2.0, 6.0])
    assert found.half_width == pytest.approx(quantile * math.sqrt(7 / 3), rel=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_scipy_gives_the_same(level):
    values = [0.3, 1.7, -0.4, 2.2, 0.9]
    oracle = stats.t.interval(level, 4, loc=sum(values) / 5, scale=stats.sem(values))
    found = student_interval(values, level)
    assert (found.low, found.high) == pytest.approx(oracle, rel=1e-10)


def test_equal_values_have_no_width():
    assert student_interval([5.0] * 4).half_width == 0


def test_a_paired_difference_ignores_what_seeds_share():
    first = {0: 10.0, 1: 20.0, 2: 30.0}
    second = {2: 29.0, 0: 9.5, 1: 18.5}
    found = paired_interval(first, second)
    apart = student_interval([0.5, 1.5, 1.0])
    assert found == apart
    assert found.mean == 1.0
    assert found.half_width < student_interval(list(first.values())).half_width / 10


def test_refusals():
    with pytest.raises(BenchError, match="at least 2"):
        student_interval([1.0])
    with pytest.raises(BenchError, match="finite"):
        student_interval([1.0, float("nan")])
    with pytest.raises(BenchError, match="level"):
        student_interval([1.0, 2.0], 95)
    with pytest.raises(BenchError, match="same seeds"):
        paired_interval({0: 1.0, 1: 2.0}, {0: 1.0, 2: 2.0})


def test_tables_can_use_it_without_torch():
    code = "import sys, hqdm_bench.evaluate.intervals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
