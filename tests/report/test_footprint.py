"""Cost of a student and the layers it exempts, as its training recorded them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hqdm_bench.catalogue import Bits, Cell
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.footprint import (
    Footprint,
    assign_marks,
    footprint,
    layers_text,
    same_layers,
)
from hqdm_bench.report.results import CellResult
from hqdm_bench.report.tables import write_table

if TYPE_CHECKING:
    from conftest import Project

SHARES = {"w8a8": 0.05, "w32a32": 0.2}


def student(bits: str, policy: str = "official", **others: float) -> CellResult:
    """A result whose layers at other widths have these shares of the arithmetic."""
    groups = {bits: {"mac_share": 1 - sum(others.values()), "weight_share": 0.9}}
    groups |= {name: {"mac_share": share} for name, share in others.items()}
    coverage: dict[str, Any] = {"by_bits": groups, "bops": 7, "weight_bytes": 3, "grid_bytes": 2}
    cell = Cell("suite", "model", "method", Bits.parse(bits), 0, "protocol")
    training = {"options": {"policy": policy}, "coverage": coverage}
    return CellResult(cell, None, training, None)


def test_footprint_by_hand() -> None:
    found = footprint([student("w4a4", **SHARES)])
    assert found == Footprint(pytest.approx(0.75), 0.9, 5, 7)
    full = CellResult(student("w4a4").cell, None, None, None)
    assert footprint([full]) is None


def test_seeds_that_differ_are_refused() -> None:
    with pytest.raises(BenchError, match="differ in what they quantize"):
        footprint([student("w4a4"), student("w4a4", w32a32=0.5)])


def test_a_lacking_number_is_named() -> None:
    result = student("w4a4")
    assert result.training is not None
    del result.training["coverage"]["grid_bytes"]
    with pytest.raises(BenchError, match="has no 'grid_bytes'; delete its training.json"):
        footprint([result])


def test_layers_in_words() -> None:
    assert layers_text(student("w4a4", policy="full")) == "every layer low-bit"
    assert layers_text(student("w4a4", **SHARES)) == (
        "of the MACs 75.0 % at these bits, 5.0 % at W8A8, 20.0 % in full precision"
    )
    assert layers_text(student("w4a4", "tfmq", w32a32=0.2, w4a32=0.1)) == (
        "of the MACs 70.0 % at these bits, 10.0 % at W4, inputs exact, 20.0 % in full precision "
        "(policy: tfmq)"
    )
    rule = "official; *.to_q = full_precision"
    assert layers_text(student("w4a4", policy=rule, w32a32=0.5)).endswith(f"(policy: {rule})")


def test_same_layers() -> None:
    usual = student("w4a4", **SHARES)
    assert same_layers(usual, student("w4a3", **SHARES))
    assert not same_layers(usual, student("w4a4", policy="full"))
    assert not same_layers(usual, student("w4a4", w8a8=0.05, w32a32=0.3))
    assert not same_layers(usual, student("w4a4", w8a8=0.06, w32a32=0.2))
    # The fixed 8-bit layers of a W8A8 student are among its low-bit ones.
    assert same_layers(usual, student("w8a8", w32a32=0.2))
    assert not same_layers(usual, student("w8a8"))


def test_marks_are_given_in_order() -> None:
    assert assign_marks(["b", "a", "b"]) == {"b": "†", "a": "‡"}
    assert list(assign_marks(map(str, range(6))).values()) == ["†", "‡", "§", "¶", "††", "‡‡"]


def test_tables_mark_other_layers(project: Project) -> None:
    for seed in range(3):
        project.write_training(
            project.cell("hqdm", "w4a4", seed),
            options={"policy": "full"},
            coverage={
                "by_bits": {"w4a4": {"mac_share": 1.0, "weight_share": 1.0}},
                "bops": 3_000_000_000,
                "weight_bytes": 1_000_000,
                "grid_bytes": 50_000,
            },
        )
    paths = write_table(1, project.root, project.suite, project.catalogue)
    csv_text, markdown, tex = (path.read_text(encoding="utf-8") for path in paths)
    assert "| HQ-DM† | 4/4 | 3 |" in markdown
    assert "| EfficientDM | 4/4 | 3 |" in markdown
    assert "| HQ-DM | 8/3 | 1 |" in markdown
    assert "- † Not the layers of the rows without a mark: every layer low-bit." in markdown
    assert "Coverage (share of MACs): W4A4, W8A3: 75.0 % at these bits" in markdown
    assert "100.0 %" not in markdown.split("\n\n")[2]
    assert "HQ-DM{\\dag} & 4/4" in tex
    assert tex.isascii()
    assert "1.0,1.0,1050000,3000000000,every layer low-bit" in csv_text


def test_tables_without_exemptions_have_no_marks(project: Project) -> None:
    csv_text, markdown, _ = (
        path.read_text(encoding="utf-8")
        for path in write_table(1, project.root, project.suite, project.catalogue)
    )
    assert "†" not in markdown
    head, *lines = csv_text.splitlines()
    assert head.endswith("verdict,mac_share,weight_share,packed_bytes,bops,layers,grids,remarks")
    ours = [line for line in lines if line.startswith("values") and ",hqdm,,,w4a4,fid" in line]
    assert [line.endswith('4000000000,,"channel; tensor, per step",') for line in ours] == [True]
