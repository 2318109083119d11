"""Reports `differences` and `comparison`: numbers by hand, words from numbers, refusals."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hqdm_bench.catalogue import Comparison
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_json
from hqdm_bench.report import write_comparison, write_differences

if TYPE_CHECKING:
    from conftest import StudyProject

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
T_TWO = 4.302652729749464
WIDTH = T_TWO * 0.1 / math.sqrt(3)  # of differences with standard deviation 0.1
FULL = "†"


def differences(study: StudyProject) -> dict[str, str]:
    write_differences(study.root, study.suite, study.catalogue)
    return texts(study, "differences")


def comparison(study: StudyProject) -> dict[str, str]:
    write_comparison(study.root, study.suite, study.catalogue)
    return texts(study, "comparison")


def texts(study: StudyProject, name: str) -> dict[str, str]:
    paths = {suffix: study.layout.report("study", name, suffix) for suffix in ("csv", "md", "tex")}
    return {suffix: path.read_text(encoding="utf-8") for suffix, path in paths.items()}


def rows(markdown: str, grid: int) -> dict[str, dict[str, str]]:
    """Rows of a grid of the page by the text of their first cell."""
    grids: list[list[str]] = [[]]
    for line in markdown.splitlines():
        if line.startswith("|"):
            grids[-1].append(line)
        elif grids[-1]:
            grids.append([])
    head, _, *body = ([cell.strip() for cell in line.split("|")[1:-1]] for line in grids[grid])
    return {cells[0]: dict(zip(head, cells, strict=True)) for cells in body}


def csv_line(text: str, **wanted: str) -> dict[str, str]:
    lines = csv.DictReader(text.splitlines())
    (found,) = [line for line in lines if all(line[key] == wanted[key] for key in wanted)]
    return found


def test_what_the_rows_of_differences_are(study: StudyProject) -> None:
    levels = rows(differences(study)["md"], 0)
    assert list(levels) == ["HQ-DM (baseline)", "HQ-DM (k = 3)", f"HQ-DM (all layers){FULL}"]
    assert levels["HQ-DM (baseline)"]["What differs"] == ""
    assert levels["HQ-DM (baseline)"]["Noise error ↓"] == "0.02000"  # geometric
    assert levels["HQ-DM (baseline)"]["FID-like ↓"] == "2.000"
    small = levels["HQ-DM (k = 3)"]
    assert small["What differs"] == "order: 5 → 3"
    assert (small["n"], small["Low-bit MACs (%)"], small["Low-bit weights (%)"]) == (
        "3",
        "75.0",
        "90.0",
    )
    assert (small["Size (MB)"], small["BOPs (G)"]) == ("2.05", "4.00")
    assert small["Noise error ↓"] == "0.01000"
    full = levels[f"HQ-DM (all layers){FULL}"]
    assert full["What differs"] == "policy: official → full"
    assert (full["Low-bit MACs (%)"], full["Size (MB)"], full["BOPs (G)"]) == (
        "100.0",
        "1.05",
        "3.00",
    )


def test_changes_by_hand(study: StudyProject) -> None:
    text = differences(study)
    changes = rows(text["md"], 1)
    width = WIDTH * math.log(2)
    ends = (0.5 * math.exp(-width), 0.5 * math.exp(width))
    small = changes["HQ-DM (k = 3)"]
    assert small["Noise error ↓"] == f"{TIMES}0.500 [{ends[0]:.3f}, {ends[1]:.3f}], better"
    assert small["FID-like ↓"] == f"{MINUS}0.500 ± {WIDTH:.3f}, better"
    assert small["Precision ↑ (%, mini features)"] == f"+5.0 ± {10 * WIDTH:.1f}, better"
    assert small["Recall ↑ (%, mini features)"] == "0.0 ± 0.0"
    assert small["PSNR to FP ↑ (dB)"] == f"+0.50 ± {WIDTH:.2f}, better"
    full = changes[f"HQ-DM (all layers){FULL}"]
    assert full["Noise error ↓"] == f"{TIMES}1.500 [1.500, 1.500], worse"
    assert full["FID-like ↓"].startswith("0.000 ± ")
    line = csv_line(text["csv"], method="hqdm-k3", metric="noise_error")
    assert (line["against"], line["kind"], line["n"], line["seeds"]) == (
        "hqdm",
        "ratio",
        "3",
        "0 1 2",
    )
    assert float(line["change_low"]) == pytest.approx(ends[0])
    assert (line["changes"], line["verdict"]) == ("order: 5 → 3", "better")
    line = csv_line(text["csv"], method="hqdm-all-low-bit", metric="fid")
    assert (line["kind"], line["verdict"]) == ("difference", "no difference seen")
    assert (line["method_mac_share"], line["against_mac_share"]) == ("1.0", "0.75")
    assert (line["method_packed_bytes"], line["method_bops"]) == ("1050000", "3000000000")
    assert line["layers"].startswith("every layer low-bit; HQ-DM: of the MACs 75.0 %")


def test_verdicts_turn_with_the_numbers(study: StudyProject) -> None:
    study.write("hqdm-k3", (0.02, 0.04, 0.081), (2.0, 3.1, 4.0))
    changes = rows(differences(study)["md"], 1)["HQ-DM (k = 3)"]
    assert changes["Noise error ↓"].endswith("worse")
    assert changes["FID-like ↓"].endswith("worse")
    assert changes["PSNR to FP ↑ (dB)"].endswith("worse")


def test_the_page_says_what_it_can_show(study: StudyProject) -> None:
    text = differences(study)
    head = text["md"].split("\n\n")[1]
    assert "n = 3 training seeds" in head
    assert "not what it does to the paper's" in head
    assert "no difference seen is not evidence of none" in head
    for sentence in (
        f"its change is a ratio ({TIMES}, below 1 is better), and its intervals are taken on",
        "the interval is over training seeds only",
        "(384 images each)",
        "Under guidance the noise of quantization can restore diversity",
        "-like: in the features of a small classifier",
        "20 DDIM steps, eta 0, guidance 1.5",
        f"- {FULL} Other layers than the baseline's are low-bit: every layer low-bit; HQ-DM: of",
    ):
        assert sentence in text["md"]
    assert "| FID " not in text["md"]


def test_latex_is_well_formed(study: StudyProject) -> None:
    for text in (differences(study)["tex"], comparison(study)["tex"]):
        assert text.isascii()
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
        assert text.count(r"\begin{itemize}") == text.count(r"\end{itemize}") > 0
        assert r"HQ-DM (all layers){\dag}" in text
        assert r"$\times$0.5" in text or r"$\times$2.0" in text
    assert r"order: 5 $\rightarrow$ 3" in differences(study)["tex"]


def test_a_study_of_students_has_the_noise_error_only(study: StudyProject) -> None:
    study.images = False
    for cell in study.suite.cells:
        study.layout.metrics(cell).unlink(missing_ok=True)
    text = differences(study)
    assert list(rows(text["md"], 1)["HQ-DM (k = 3)"]) == ["Method", "n", "Noise error ↓"]
    assert {line["metric"] for line in csv.DictReader(text["csv"].splitlines())} == {"noise_error"}
    assert "-like" not in text["md"]
    assert "images each" not in text["md"]


def test_all_shared_seeds_are_used(study: StudyProject) -> None:
    study.seeds["hqdm-k3"] = (0, 1, 5)
    study.write("hqdm-k3", (0.02, 0.04, 9.0), (1.5, 2.5, 9.0))
    text = differences(study)
    assert rows(text["md"], 1)["HQ-DM (k = 3)"]["n"] == "2"
    line = csv_line(text["csv"], method="hqdm-k3", metric="noise_error")
    assert (line["seeds"], float(line["change_mean"])) == ("0 1", pytest.approx(2.0))
    assert float(line["against_mean"]) == pytest.approx(math.sqrt(0.01 * 0.02))


def test_one_shared_seed_is_refused(study: StudyProject) -> None:
    study.seeds["hqdm-k3"] = (2, 3, 4)
    study.write("hqdm-k3", (0.02, 0.04, 0.08), (1.5, 2.5, 9.0))
    for write, pair in (
        (differences, "hqdm-k3/w4a4 against hqdm"),
        (comparison, "hqdm/w4a4 against hqdm-k3"),
    ):
        with pytest.raises(BenchError, match=f"^study/small/{pair}, .* at least 2 shared seeds"):
            write(study)
    assert not study.layout.report("study", "differences", "md").exists()


def test_differing_implementations_are_named(study: StudyProject) -> None:
    study.comparisons = (Comparison("hqdm", ("efficientdm",)),)
    study.write("efficientdm", (0.01, 0.02, 0.04), (1.0, 2.0, 3.0))
    found = rows(differences(study)["md"], 0)["EfficientDM"]["What differs"]
    assert found == "implementation: hqdm → efficientdm"


def test_ours_against_the_others(study: StudyProject) -> None:
    """The judged method comes first: its changes and verdicts are the other report's, turned."""
    text = comparison(study)
    line = csv_line(text["csv"], against="hqdm-k3", metric="fid")
    assert (line["method"], line["verdict"]) == ("hqdm", "worse")
    assert float(line["change_mean"]) == pytest.approx(0.5)
    line = csv_line(text["csv"], against="hqdm-all-low-bit", metric="noise_error")
    assert (float(line["change_mean"]), line["verdict"]) == (pytest.approx(1 / 1.5), "better")
    found = rows(text["md"], 0)["4/4"]
    assert found["Quantity"] == "Noise error ↓"
    assert found["HQ-DM"].startswith("0.02000 [0.00")
    assert found["Change against HQ-DM (k = 3)"].startswith(f"{TIMES}2.000 [")
    assert found["Verdict against HQ-DM (k = 3)"] == "worse"
    assert found["Verdict against HQ-DM (all layers)"] == "better"
    assert f"| HQ-DM (all layers){FULL} | 100.0 | 100.0 | 1.05 | 3.00 |" in text["md"]
    assert f"- {FULL} Not the same layers are low-bit: of the MACs 75.0 %" in text["md"]


def test_the_summary_comes_from_the_numbers(study: StudyProject) -> None:
    summary = comparison(study)["md"].split("## Summary\n\n")[1].splitlines()
    assert len(summary) == 2 * 3
    assert summary[0].startswith("- Against HQ-DM (k = 3), HQ-DM is better in 0 of 6 comparisons")
    assert summary[1].endswith("small W4A4 (Recall).")
    assert summary[2].startswith("- Against HQ-DM (k = 3), HQ-DM is worse in 5 of 6 comparisons")
    assert summary[2].endswith("(Noise error, FID-like, sFID-like, Precision, PSNR to FP).")
    assert "is better in 1 of 6" in summary[3]
    study.write("hqdm-k3", (0.02, 0.04, 0.081), (2.0, 3.1, 4.0))
    summary = comparison(study)["md"].split("## Summary\n\n")[1].splitlines()
    assert summary[0].startswith("- Against HQ-DM (k = 3), HQ-DM is better in 5 of 6 comparisons")
    assert "is worse in 0 of 6 comparisons" in summary[2]


def test_every_model_and_bit_width_has_its_rows(study: StudyProject) -> None:
    study.models = {"small": None, "other": None}
    study.bits = ("w4a4", "w8a3")
    study.write("hqdm", (0.01, 0.02, 0.04), (1.0, 2.0, 3.0))
    study.write("hqdm-k3", (0.005, 0.01, 0.02), (0.5, 1.4, 2.6))
    study.write("hqdm-all-low-bit", (0.015, 0.03, 0.06), (2.0, 2.0, 2.0))
    text = differences(study)
    heads = [line for line in text["md"].splitlines() if line.startswith("## ")]
    assert heads[:4] == [
        f"## {model}, {bits}, against HQ-DM"
        for model in ("small", "other")
        for bits in ("W4A4", "W8A3")
    ]
    assert len(text["csv"].splitlines()) == 1 + 2 * 2 * 2 * 6
    compared = comparison(study)
    assert [row for row in rows(compared["md"], 0) if row] == ["4/4", "8/3"]
    assert "in 4 of 24 comparisons" in compared["md"]


def test_what_cannot_be_compared_is_refused(study: StudyProject) -> None:
    suite = study.suite
    with pytest.raises(BenchError, match="suite 'study' has no pair to compare; see 'compare'"):
        write_differences(study.root, replace(suite, comparisons=()), study.catalogue)
    absent = replace(suite, comparisons=(Comparison("hqdm", ("hqdm-k3", "hqdm-plus")),))
    with pytest.raises(BenchError, match="no pair to compare: no cells of hqdm-plus; see"):
        write_differences(study.root, absent, study.catalogue)
    cell = suite.cells[-1]
    other = study.metrics(cell, 1.0) | {"protocol": study.protocol.asdict() | {"guidance": 3.0}}
    write_json(study.layout.metrics(cell), other)
    with pytest.raises(BenchError, match="under different protocols"):
        differences(study)


def test_files_do_not_change_by_themselves(study: StudyProject) -> None:
    assert differences(study) == differences(study)
    assert comparison(study) == comparison(study)
