"""What the paper's own tables say of its sentences: each contradiction, and that it can vanish."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.claims import check, read_claims
from hqdm_bench.report.claims.arithmetic import CONTRADICTS, FOLLOWS, NOT_CHECKABLE
from hqdm_bench.report.claims.printed import PaperTables
from hqdm_bench.report.claims.specs import Stated

if TYPE_CHECKING:
    from hqdm_bench.report.claims import Finding

ROOT = Path(__file__).resolve().parents[3]


def finding(name: str, root: Path = ROOT) -> Finding:
    claims = read_claims(root)
    (claim,) = [claim for claim in claims if claim.id == name]
    return check(claim, claims, PaperTables.read(root))


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A copy of the paper's data to alter."""
    shutil.copytree(ROOT / "paper", tmp_path / "paper")
    return tmp_path


def alter(root: Path, table: int, line: str, value: str) -> None:
    """Another number in a cell, named by the start of its line."""
    path = root / "paper" / "data" / f"table{table}.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    (place,) = [number for number, text in enumerate(lines) if text.startswith(f"{line},")]
    lines[place] = f"{line},{value},"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def alter_claim(root: Path, name: str, **values: object) -> None:
    path = root / "paper" / "claims.yaml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in entries:
        if entry["id"] == name:
            entry.update(values)
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "recomputed"),
    [
        ("is-w4a4-abstract", 12.7611),
        ("is-w4a4", 12.7611),
        ("is-w4a3", 467.7346),
        ("precision-w4a3", 99.6725),
        ("bedrooms-fid-w8a4", 5.56),
        ("bedrooms-fid-w4a4", 3.66),
        ("churches-fid-w4a4", 3.19),
        ("churches-fid-w4a3", 6.30),
    ],
)
def test_numbers_that_follow(name: str, recomputed: float) -> None:
    found = finding(name)
    assert found.verdict == FOLLOWS
    assert found.recomputed == pytest.approx(recomputed, abs=1e-4)


def test_one_number_printed_twice_at_two_precisions() -> None:
    assert "section 5.2 prints 12.76, the same number" in finding("is-w4a4-abstract").text
    assert "abstract prints 12.8, the same number" in finding("is-w4a4").text


def test_one_number_printed_twice_with_two_values(paper: Path) -> None:
    alter_claim(paper, "is-w4a4-abstract", stated="12.9")
    assert finding("is-w4a4-abstract", paper).verdict == CONTRADICTS
    assert "abstract prints 12.9, another number" in finding("is-w4a4", paper).text


def test_bedrooms_w3a4_is_the_sfids() -> None:
    found = finding("bedrooms-fid-w3a4")
    assert found.verdict == CONTRADICTS
    assert found.recomputed == pytest.approx(1.70)
    assert "19.22 against 20.92: 1.70; 3.49 is what Table 2, W3A4, sFID gives" in found.text


def test_bedrooms_w4a3_is_nothings() -> None:
    found = finding("bedrooms-fid-w4a3")
    assert found.verdict == CONTRADICTS
    assert found.recomputed == pytest.approx(4.92)
    assert "no other cell gives 5.98" in found.text


def test_the_bedrooms_numbers_could_follow(paper: Path) -> None:
    alter(paper, 2, "2,hqdm,,w3a4,fid", "17.43")
    alter(paper, 2, "2,efficientdm,,w4a3,fid", "27.86")
    assert finding("bedrooms-fid-w3a4", paper).verdict == FOLLOWS
    assert finding("bedrooms-fid-w4a3", paper).verdict == FOLLOWS
    alter(paper, 2, "2,hqdm,,w8a4,fid", "12.36")
    assert finding("bedrooms-fid-w8a4", paper).verdict == CONTRADICTS


def test_not_all_four_metrics_gain_100_percent(paper: Path) -> None:
    found = finding("all-four-w4a3")
    assert (found.verdict, found.count, len(found.exceptions)) == (CONTRADICTS, 4, 3)
    fid, sfid, precision = found.exceptions
    assert "FID (falls by 66.46 %, no fall exceeds 100 %; 33.47 from 99.78)" in fid
    assert "sFID (falls by 81.62 %" in sfid
    assert "Precision (rises by 99.67 %)" in precision
    alter(paper, 1, "1,hqdm,,w4a3,precision", "54.97")
    assert len(finding("all-four-w4a3", paper).exceptions) == 2  # a fall never does


def test_order_five_is_not_best_in_inception_score(paper: Path) -> None:
    found = finding("best-order")
    assert found.verdict == CONTRADICTS
    assert found.exceptions == ("Table 4, W4A4, IS (best at k = 3: 249.24 against 248.30)",)
    for order in (3, 6):
        alter(paper, 4, f"4,hqdm,{order},w4a4,is", "248.29")
    assert finding("best-order", paper).verdict == FOLLOWS


def test_the_lead_does_not_grow_in_every_metric(paper: Path) -> None:
    found = finding("lsun-trend")
    assert (found.verdict, found.count) == (CONTRADICTS, 8)
    assert [text.split(" (")[0] for text in found.exceptions] == [
        "Table 2, W4A3, sFID",
        "Table 2, W4A3, Precision",
        "Table 2, W4A3, Recall",
        "Table 3, W4A3, Recall",
    ]
    # The FID of bedrooms gains more points and fewer percent: the kinder reading counts.
    assert not any("FID (gain" in text.replace("sFID", "") for text in found.exceptions)
    imagenet = finding("imagenet-trend")
    assert [text.split(" (")[0] for text in imagenet.exceptions] == [
        "Table 1, W8A4, FID",
        "Table 1, W8A4, sFID",
        "Table 1, W4A4, FID",
    ]
    assert finding("trend-everywhere").exceptions == imagenet.exceptions + found.exceptions
    alter(paper, 3, "3,hqdm,,w4a3,recall", "40.08")
    assert len(finding("lsun-trend", paper).exceptions) == 3


def test_rows_where_it_is_behind() -> None:
    found = finding("imagenet-ahead")
    assert (found.verdict, len(found.exceptions)) == (CONTRADICTS, 13)
    behind = "\n".join(found.exceptions)
    for text in (
        "W8A8, IS (363.22 against EfficientDM's 363.71)",
        "W8A8, sFID (7.76 against EfficientDM's 7.65)",
        "W8A4, FID (7.68 against EfficientDM's 6.75)",
        "W8A4, sFID (9.93 against EfficientDM's 8.48)",
        "W4A8, IS (350.22 against EfficientDM's 351.97)",
        "W4A8, FID (9.85 against PTQD's 8.74)",
        "W4A4, FID (6.58 against QuEST's 5.98)",
    ):
        assert text in behind
    everywhere = finding("ahead-of-all")
    assert "Table 2, W2A4, FID (28.50 against TFMQ-DM's 25.77)" in everywhere.exceptions
    assert set(found.exceptions) < set(everywhere.exceptions)


def test_who_is_the_state_of_the_art() -> None:
    found = finding("state-of-the-art")
    assert found.exceptions == ("Table 1, W4A4, FID (6.63 against QuEST's 5.98)",)


@pytest.mark.parametrize(
    ("name", "line", "value"),
    [
        ("ahead-low-bits", "2,hqdm,,w4a3,recall", "29.01"),  # by 0.08 points as printed
        ("churches-ahead", "3,hqdm,,w4a3,recall", "26.06"),  # level is not ahead
        ("bedrooms-ahead", "2,tfmq,,w3a4,fid", "19.00"),
        ("weight-stability", "2,hqdm,,w8a4,recall", "36.00"),
        ("qat-degrades", "3,efficientdm,,w4a3,recall", "49.00"),
        ("ptq-degrades", "1,quest,,w4a4,is", "400.00"),
    ],
)
def test_sentences_that_follow_and_would_not(paper: Path, name: str, line: str, value: str) -> None:
    found = finding(name)
    assert (found.verdict, found.exceptions) == (FOLLOWS, ())
    alter(paper, int(line[0]), line, value)
    altered = finding(name, paper)
    assert altered.verdict == CONTRADICTS
    assert len(altered.exceptions) == 1


def test_a_row_of_dashes_is_behind_and_a_single_dash_says_nothing() -> None:
    # W3A4: EfficientDM and TFMQ-DM; W8A4 and W4A4: TFMQ-DM's rows are dashes; W4A3: one rival.
    found = finding("bedrooms-ahead")
    assert found.count == 7
    assert found.text == "True of 7 of 7 comparisons, 2 of them with a row of dashes."
    # QuEST prints no sFID and precision: 6 of 8.
    assert finding("state-of-the-art").count == 6


def test_what_the_tables_are_silent_about() -> None:
    for name in ("imagenet-w8a3", "double-degrades", "accumulation-alleviated"):
        assert "print nothing for these cells" in finding(name).text
    for name in ("outliers-reduced", "faster-convergence", "integer-convolution"):
        assert finding(name).verdict == NOT_CHECKABLE


def test_the_count_of_contradictions() -> None:
    claims, tables = read_claims(ROOT), PaperTables.read(ROOT)
    verdicts = [check(claim, claims, tables).verdict for claim in claims]
    assert [verdicts.count(word) for word in (FOLLOWS, CONTRADICTS)] == [14, 10]


@pytest.mark.parametrize(
    ("text", "value", "agrees"),
    [
        ("12.8", 12.7611, True),
        ("12.8", 12.85, True),
        ("12.8", 12.8501, False),
        ("12.76", 12.7549, False),
        ("6.3", 6.299999, True),
        ("100", 99.6, True),
        ("100", 99.4, False),
    ],
)
def test_rounding_is_half_a_unit_of_the_last_digit(text: str, value: float, agrees: bool) -> None:
    assert Stated.parse(text).agrees(value) is agrees


def test_the_papers_page_is_up_to_date() -> None:
    path = ROOT / "tools" / "paper_claims.py"
    spec = importlib.util.spec_from_file_location("paper_claims", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "paper" / "README.md").read_text(encoding="utf-8")
    assert module.updated(text, ROOT) == text, "run `python tools/paper_claims.py`"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stated": None}, "stated is None"),
        ({"stated": "12,8"}, "stated is '12,8'"),
        ({"kind": "gain"}, "kind is 'gain'; allowed: relative_gain"),
        ({"place": "the appendix"}, "place is 'the appendix'"),
        ({"quote": "x" * 121}, "quote is"),
        ({"rule": "a > b"}, "unknown key rule; allowed: against, also, cells"),
        ({"cells": [{"table": 5, "bits": ["w4a4"], "metrics": ["is"]}]}, "table is 5"),
        ({"cells": [{"table": 1, "bits": ["w4a4"], "metrics": ["kid"]}]}, "is 'kid'; allowed"),
        ({"id": "is-w4a3"}, "claim 'is-w4a3' is there twice"),
        (
            {"cells": [{"table": 1, "bits": ["w4a4", "w4a3"], "metrics": ["is"]}]},
            "claim 'is-w4a4' states one number of 2 cells",
        ),
        ({"kind": "optimum"}, "missing key order"),
        ({"kind": "not_measured"}, "missing key needs"),
        ({"kind": "outliers_reduced"}, "missing key figures, statistic"),
    ],
)
def test_a_claim_that_breaks_its_form_is_named(
    paper: Path, change: dict[str, object], message: str
) -> None:
    alter_claim(paper, "is-w4a4", **change)
    with pytest.raises(BenchError, match=message.replace("(", r"\(")):
        read_claims(paper)
