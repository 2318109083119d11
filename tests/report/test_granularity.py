"""Grids in words, from the options a student was trained with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hqdm_bench.catalogue import Bits, Cell
from hqdm_bench.methods.registry import available_methods
from hqdm_bench.report.granularity import granularity
from hqdm_bench.report.results import CellResult


def student(implementation: str, **options: Any) -> CellResult:
    cell = Cell("suite", "model", implementation, Bits(4, 4), 0, "protocol")
    training = {"method": {"implementation": implementation}, "options": options}
    return CellResult(cell, None, training, None)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "channel; tensor, per step"),
        ({"weight_grids": "tensor"}, "tensor; tensor, per step"),
        ({"activation_steps": "shared"}, "channel; tensor"),
        ({"activation_channels": "channel"}, "channel; channel, per step"),
        ({"weight_scales": "per_step"}, "channel, per step; tensor, per step"),
        ({"finite_set": "temporal"}, "channel; tensor"),
    ],
)
def test_grids(options: dict[str, Any], text: str) -> None:
    found = granularity([student("any", **options)])
    assert str(found) == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention": "quantized"}, "attention quantized"),
        ({"split": "skip"}, "concatenation in two parts"),
        ({"mixed": "outliers"}, "bits differ"),
        ({"outlier_split": 0.02}, "given twice"),
        ({"attention": "quantized", "softmax_bits": 8}, "too, softmax at 8 bits"),
        ({"factors": "per_step"}, "power-of-two factor"),
        ({"finite_set": "temporal"}, "nothing but the timestep"),
        ({"correction": "both"}, "corrected while sampling"),
        ({"activation_channels": "channel"}, "integer dot product"),
    ],
)
def test_what_is_unusual_is_said(options: dict[str, Any], words: str) -> None:
    found = granularity([student("any", **options)])
    assert found is not None
    (remark,) = found.remarks
    assert words in remark


@pytest.mark.parametrize("value", [None, False, 0, "none", "off", "full_precision"])
def test_what_is_off_is_not(value: object) -> None:
    names = ("attention", "split", "mixed", "outlier_split", "factors", "correction")
    found = granularity([student("ptqd", **dict.fromkeys(names, value))])
    assert found is not None
    assert found.remarks == ()


def test_a_method_that_corrects_says_so() -> None:
    found = granularity([student("ptqd", correction="yes")])
    assert found is not None
    assert found.remarks == ("predictions corrected while sampling",)


def test_full_precision_has_no_grids() -> None:
    assert granularity([replace(student("fp"), training=None)]) is None
    assert granularity([]) is None


@pytest.mark.parametrize("name", [name for name in available_methods() if name != "fp"])
def test_every_registered_method_can_be_described(name: str) -> None:
    """Names of options are shared with the methods, whose defaults must be understood."""
    defaults = available_methods()[name].options()
    found = granularity([student(name, **defaults.resolved())])
    assert found is not None
    assert {found.weights, found.inputs} <= {"channel", "tensor"}


@pytest.mark.parametrize(("share", "inputs"), [(0.9, "channel"), (0.0, "tensor")])
def test_what_was_counted_wins_over_an_option_that_depends_on_the_bits(
    share: float, inputs: str
) -> None:
    result = student("quest", activation_channels="channel_at_a4")
    assert result.training is not None
    counted = {"channel_steps": {"mac_share": share, "weight_share": share}}
    found = granularity([replace(result, training={**result.training, "coverage": counted})])
    assert found is not None
    assert found.inputs == inputs
    assert bool(found.remarks) == (inputs == "channel")
