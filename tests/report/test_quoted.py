"""Printed numbers and their sources."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.paper import paper_rows
from hqdm_bench.report.quoted import CITED, RUN, SOURCES, quoted_rows, quoted_title

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("table", [1, 2, 3, 4])
def test_the_papers_rows_come_first_and_stay_as_they_are(table: int) -> None:
    own, found = paper_rows(ROOT, table), quoted_rows(ROOT, table)
    assert [(row.method, row.bits, row.order, row.values) for row in found[: len(own)]] == [
        (row.method, row.bits, row.order, row.values) for row in own
    ]
    assert {row.source for row in found[: len(own)]} <= {RUN, CITED}
    assert all(row.source not in (RUN, CITED) for row in found[len(own) :])


def test_the_paper_runs_its_own_and_efficientdm_and_cites_the_others() -> None:
    rows = [row for table in (1, 2, 3, 4) for row in quoted_rows(ROOT, table)]
    by_source = {
        name: {row.method for row in rows if row.source == name} for name in (RUN, CITED, "dmq")
    }
    assert by_source == {
        RUN: {"fp", "efficientdm", "hqdm"},
        CITED: {"qdiffusion", "ptqd", "tfmq", "quest"},
        "dmq": {"fp", "dmq"},
    }


def test_dmqs_rows_are_those_of_its_paper() -> None:
    rows = [row for row in quoted_rows(ROOT, 1) if row.source == "dmq"]
    assert [
        (quoted_title(row), str(row.bits), [value.value for value in row.values.values()])
        for row in rows
    ] == [
        ("FP (DMQ)", "w32a32", [366.8, 11.34, 7.81]),
        ("DMQ", "w4a8", [350.8, 9.68, 7.19]),
        ("DMQ", "w4a6", [320.6, 7.81, 7.26]),
    ]
    assert [value.decimals for value in rows[0].values.values()] == [1, 2, 2]
    assert "third-party" in SOURCES["dmq"].says


def test_every_line_of_the_file_is_read() -> None:
    lines = (ROOT / "paper" / "data" / "quoted.csv").read_text().splitlines()[1:]
    read = [
        value
        for table in (1, 2, 3, 4)
        for row in quoted_rows(ROOT, table)
        if row.source not in (RUN, CITED)
        for value in row.values
    ]
    assert len(read) == len(lines)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "paper" / "data", tmp_path / "paper" / "data")
    path = tmp_path / "paper" / "data" / "quoted.csv"
    path.write_text("table,method\n")
    with pytest.raises(BenchError, match=r"quoted\.csv: columns must be table,source,method"):
        quoted_rows(tmp_path, 1)
    path.unlink()
    with pytest.raises(BenchError, match=r"quoted\.csv does not exist; restore it"):
        quoted_rows(tmp_path, 1)
