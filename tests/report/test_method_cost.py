"""Costs as the run recorded them, over the seeds."""

from __future__ import annotations

from typing import Any

import pytest

from hqdm_bench.catalogue import Bits, Cell
from hqdm_bench.report.method_cost import method_cost
from hqdm_bench.report.results import CellResult

COST = {
    "seconds": {"Calibrate": 2.0, "Distill": 10.0},
    "cpu_seconds": 20.0,
    "peak_memory_mb": 500.0,
    "samples": 640,
    "extra_parameters": 1460,
}


def seed(number: int, cost: dict[str, Any] | None) -> CellResult:
    cell = Cell("suite", "model", "hqdm", Bits(4, 4), number, "protocol")
    training: dict[str, Any] = {} if cost is None else {"cost": cost}
    return CellResult(cell, None, training, None)


def test_means_over_the_seeds_and_the_most_memory() -> None:
    other = COST | {"seconds": {"Calibrate": 4.0, "Distill": 14.0}, "cpu_seconds": 30.0}
    other |= {"peak_memory_mb": 700.0}
    found = method_cost([seed(0, COST), seed(1, other)])
    assert found is not None
    assert found.seconds == {"Calibrate": 3.0, "Distill": 12.0}
    assert (found.total_seconds, found.cpu_seconds, found.peak_memory_mb) == (15.0, 25.0, 700.0)
    assert (found.samples, found.extra_parameters) == (640, 1460)
    assert found.peak_gpu_memory_mb is None


def test_a_stage_of_one_seed_counts_none_in_the_others() -> None:
    found = method_cost([seed(0, COST), seed(1, COST | {"seconds": {"Distill": 8.0}})])
    assert found is not None
    assert found.seconds == {"Calibrate": 1.0, "Distill": 9.0}
    assert found.total_seconds == pytest.approx(10.0)


def test_time_is_a_mean_over_the_seeds_that_recorded_it() -> None:
    found = method_cost([seed(0, {"samples": 640}), seed(1, COST)])
    assert found is not None
    assert found.seconds == COST["seconds"]
    assert found.samples == 640


def test_what_was_not_recorded_is_none() -> None:
    assert method_cost([seed(0, None)]) is None
    assert method_cost([]) is None
    found = method_cost([seed(0, {"seconds": {"Distill": 1.0}, "cpu_seconds": None})])
    assert found is not None
    assert (found.total_seconds, found.cpu_seconds, found.peak_memory_mb) == (1.0, None, None)
    assert (found.samples, found.extra_parameters) == (None, None)
    bare = method_cost([seed(0, {"samples": 3})])
    assert bare is not None
    assert bare.total_seconds is None


def test_a_cost_of_zero_is_not_missing() -> None:
    found = method_cost([seed(0, COST | {"extra_parameters": 0, "samples": 0})])
    assert found is not None
    assert (found.samples, found.extra_parameters) == (0, 0)
