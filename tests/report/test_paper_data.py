"""The paper's numbers: complete, and saying what the paper says they say."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.paper import PAPER_IMAGES, PAPER_TITLES, paper_rows

ROOT = Path(__file__).resolve().parents[2]


def number(table: int, method: str, bits: str, metric: str, order: int | None = None) -> float:
    for row in paper_rows(ROOT, table):
        if (row.method, row.bits, row.order) == (method, Bits.parse(bits), order):
            value = row.values[metric].value
            assert value is not None
            return value
    raise AssertionError(f"table {table} has no {method} {bits}")


def gain(table: int, bits: str, metric: str) -> float:
    """Percent by which HQ-DM's number exceeds EfficientDM's."""
    ratio = number(table, "hqdm", bits, metric) / number(table, "efficientdm", bits, metric)
    return 100 * (ratio - 1)


def fall(table: int, bits: str, metric: str) -> float:
    """How much lower HQ-DM's number is than EfficientDM's."""
    return number(table, "efficientdm", bits, metric) - number(table, "hqdm", bits, metric)


@pytest.mark.parametrize(
    ("table", "rows", "metrics", "dashes"),
    [
        (1, 20, ["is", "fid", "sfid", "precision"], {"failed": 16, "not given": 2}),
        (2, 15, ["fid", "sfid", "precision", "recall"], {"failed": 8, "not given": 3}),
        (3, 5, ["fid", "sfid", "precision", "recall"], {}),
        (4, 4, ["is", "fid", "sfid", "precision"], {}),
    ],
)
def test_every_cell_of_every_table_is_there(
    table: int, rows: int, metrics: list[str], dashes: dict[str, int]
) -> None:
    found = paper_rows(ROOT, table)
    assert len(found) == rows
    assert all(list(row.values) == metrics for row in found)
    values = [value for row in found for value in row.values.values()]
    assert Counter(value.note for value in values if value.value is None) == dashes
    assert all(value.note == "" for value in values if value.value is not None)
    assert {row.method for row in found} <= set(PAPER_TITLES)


def test_rows_keep_the_order_of_the_paper() -> None:
    assert [str(bits) for bits in dict.fromkeys(row.bits for row in paper_rows(ROOT, 1))] == [
        "w32a32",
        "w8a8",
        "w8a4",
        "w4a8",
        "w4a4",
        "w4a3",
    ]
    assert [row.order for row in paper_rows(ROOT, 4)] == [3, 4, 5, 6]


def test_a_row_is_failed_only_as_a_whole() -> None:
    for table in (1, 2, 3, 4):
        for row in paper_rows(ROOT, table):
            failed = [value.note == "failed" for value in row.values.values()]
            assert all(failed) or not any(failed)


def test_the_headline_gains_follow_from_table_1() -> None:
    assert gain(1, "w4a4", "is") == pytest.approx(12.76, abs=0.005)
    assert gain(1, "w4a3", "is") == pytest.approx(467.73, abs=0.005)
    assert gain(1, "w4a3", "precision") == pytest.approx(99.7, abs=0.05)


def test_distances_cannot_improve_by_more_than_100_percent() -> None:
    assert gain(1, "w4a3", "fid") == pytest.approx(-66.46, abs=0.005)
    assert gain(1, "w4a3", "sfid") == pytest.approx(-81.62, abs=0.005)


def test_fid_reductions_that_follow_and_those_that_do_not() -> None:
    assert fall(2, "w8a4", "fid") == pytest.approx(5.56)
    assert fall(2, "w4a4", "fid") == pytest.approx(3.66)
    assert fall(3, "w4a4", "fid") == pytest.approx(3.19)
    assert fall(3, "w4a3", "fid") == pytest.approx(6.30)
    # The text says 3.49 and 5.98.
    assert fall(2, "w3a4", "fid") == pytest.approx(1.70)
    assert fall(2, "w3a4", "sfid") == pytest.approx(3.49)
    assert fall(2, "w4a3", "fid") == pytest.approx(4.92)


def test_order_five_is_best_except_in_inception_score() -> None:
    best = {
        metric: pick(
            (3, 4, 5, 6), key=lambda k, metric=metric: number(4, "hqdm", "w4a4", metric, k)
        )
        for metric, pick in (("is", max), ("fid", min), ("sfid", min), ("precision", max))
    }
    assert best == {"is": 3, "fid": 5, "sfid": 5, "precision": 5}


def test_table_4_repeats_the_row_of_table_1() -> None:
    for metric in ("is", "fid", "sfid", "precision"):
        assert number(4, "hqdm", "w4a4", metric, 5) == number(1, "hqdm", "w4a4", metric)


def test_captions() -> None:
    with (ROOT / "paper" / "data" / "captions.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    held = {(row["item"], row["quantity"]): row["value"] for row in rows}
    assert [held[f"table{n}", "steps"] for n in (1, 2, 3, 4)] == ["20", "100", "100", "20"]
    assert {held[f"table{n}", "images"] for n in (1, 2, 3, 4)} == {str(PAPER_IMAGES)}
    for n in range(5, 11):
        item = f"fig{n:02d}"
        times = [
            row["value"] for row in rows if (row["item"], row["quantity"]) == (item, "timestep")
        ]
        assert times == ["0", "9", "18"]
    assert [held[f"fig{n}", "bits"] for n in (11, 12, 13, 14)] == ["w4a4", "w8a3", "w4a3", "w4a3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,hqdm,,w4a4,kid,1.0,", "line 2: metric 'kid' unknown or repeated"),
        ("1,hqdm,,w4a4,fid,1.0,failed", "line 2: a value has no note"),
        ("1,hqdm,,w4a4,fid,,", "line 2: a value has no note"),
        ("1,hqdm,,w4a4,fid,one,", "line 2: value 'one' is not a number"),
        ("1,hqdm,,4/4,fid,1.0,", "bit-width '4/4'"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    folder = tmp_path / "paper" / "data"
    folder.mkdir(parents=True)
    (folder / "table1.csv").write_text(f"table,method,order,bits,metric,value,note\n{line}\n")
    with pytest.raises(BenchError, match=message):
        paper_rows(tmp_path, 1)


def test_missing_data_and_wrong_columns(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="restore it"):
        paper_rows(tmp_path, 1)
    (tmp_path / "paper" / "data").mkdir(parents=True)
    (tmp_path / "paper" / "data" / "table1.csv").write_text("a,b\n")
    with pytest.raises(BenchError, match="columns must be"):
        paper_rows(tmp_path, 1)
