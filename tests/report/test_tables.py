"""Tables: the paper's rows, our numbers by hand, and files that never change by themselves."""

from __future__ import annotations

import csv
import math
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hqdm_bench.catalogue import Bits, MethodSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json
from hqdm_bench.report.results import ResultSet
from hqdm_bench.report.table_build import build_tables
from hqdm_bench.report.table_csv import csv_text
from hqdm_bench.report.table_latex import escape
from hqdm_bench.report.table_markdown import markdown
from hqdm_bench.report.tables import write_table

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

MINUS = "\N{MINUS SIGN}"
T_TWO = 4.302652729749464
EFFICIENTDM_WIDTH = T_TWO / math.sqrt(3)  # seeds 1, 2, 3
# Differences -0.5, -0.6, -0.4: mean -0.5, standard deviation 0.1.
DIFFERENCE_WIDTH = T_TWO * 0.1 / math.sqrt(3)


def written(project: Project, number: int) -> dict[str, str]:
    paths = write_table(number, project.root, project.suite, project.catalogue)
    return {path.suffix[1:]: path.read_text(encoding="utf-8") for path in paths}


def markdown_rows(text: str) -> list[dict[str, str]]:
    """Rows of all grids, by head."""
    rows, head = [], None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if head is None:
            head = cells
        elif not set("".join(cells)) <= set(":-"):
            rows.append(dict(zip(head, cells, strict=True)))
    return rows


def row(rows: list[dict[str, str]], method: str, bits: str) -> dict[str, str]:
    (found,) = [r for r in rows if (r.get("Method"), r["W/A"]) == (method, bits)]
    return found


def csv_line(text: str, **wanted: str) -> dict[str, str]:
    lines = csv.DictReader(text.splitlines())
    (found,) = [line for line in lines if all(line[key] == wanted[key] for key in wanted)]
    return found


def test_paths(project: Project) -> None:
    folder = project.root / "results" / "tiny" / "tables"
    paths = write_table(1, project.root, project.suite, project.catalogue)
    assert paths == tuple(folder / f"table1.{suffix}" for suffix in ("csv", "md", "tex"))


def test_rows_of_table_1(project: Project) -> None:
    rows = [r for r in markdown_rows(written(project, 1)["md"]) if "Method" in r]
    methods = [(r["Method"], r["W/A"]) for r in rows]
    assert len(methods) == 20 + 3 + 2  # the paper's, DMQ's, and our two at W8A3
    assert methods[:3] == [("FP", "32/32"), ("FP (DMQ)", "32/32"), ("Q-Diffusion", "8/8")]
    assert methods[-2:] == [("EfficientDM", "8/3"), ("HQ-DM", "8/3")]
    assert not any("k = 3" in method for method, _ in methods)


def test_numbers_by_hand(project: Project) -> None:
    rows = markdown_rows(written(project, 1)["md"])
    found = row(rows, "EfficientDM", "4/4")
    assert found["n"] == "3"
    assert found["FID ↓ quoted"] == "6.63"
    assert found["FID-like ↓ measured"] == f"2.000 ± {EFFICIENTDM_WIDTH:.3f}"
    assert found["sFID-like ↓ measured"] == f"4.000 ± {2 * EFFICIENTDM_WIDTH:.3f}"
    assert found["Precision ↑ (%, mini features) measured"] == "75.0 ± 0.0"
    assert found["Noise error ↓"] == f"0.02000 ± {0.01 * EFFICIENTDM_WIDTH:.5f}"
    assert found["PSNR to FP ↑ (dB)"] == f"28.00 ± {EFFICIENTDM_WIDTH:.2f}"
    assert found["Latent MSE ↓"] == f"0.0400 ± {0.02 * EFFICIENTDM_WIDTH:.4f}"


def test_quoted_rows_say_where_they_are_from(project: Project) -> None:
    texts = written(project, 1)
    rows = [r for r in markdown_rows(texts["md"]) if "Method" in r]
    sources = {(r["Method"], r["W/A"]): r["Quoted from"] for r in rows}
    assert sources["EfficientDM", "4/4"] == sources["HQ-DM", "8/8"] == "HQ-DM, run"
    for method, bits in (("Q-Diffusion", "4/8"), ("PTQD", "8/8"), ("QuEST", "4/4")):
        assert sources[method, bits] == "HQ-DM, cited"
    assert sources["HQ-DM", "8/3"] == ""  # measured only
    assert "“HQ-DM, cited”: taken by the paper from another publication" in texts["md"]
    assert "Measured: by this package, every row under the one protocol above." in texts["md"]
    line = csv_line(texts["csv"], section="values", method="quest", metric="fid")
    assert (line["quoted"], line["quoted_from"], line["measured"]) == ("5.98", "hqdm_cited", "")


def test_rows_of_another_paper_are_marked_and_hold_nothing_of_the_papers(project: Project) -> None:
    texts = written(project, 1)
    rows = markdown_rows(texts["md"])
    full = row(rows, "FP (DMQ)", "32/32")
    assert (full["Quoted from"], full["FID ↓ quoted"], full["IS ↑ quoted"]) == (
        "DMQ",
        "11.34",
        "366.8",
    )
    assert (full["n"], full["FID-like ↓ measured"]) == ("", "")  # ours stands in the paper's row
    assert row(rows, "FP", "32/32")["n"] == "1"
    assert [row(rows, "DMQ", bits)["FID ↓ quoted"] for bits in ("4/8", "4/6")] == ["9.68", "7.81"]
    assert "not in the paper: from DMQ's own (ICCV 2025, arXiv 2507.12933)" in texts["md"]
    assert "DMQ" not in written(project, 4)["md"]


def test_a_measured_row_stands_beside_the_other_papers(paper_project: Project) -> None:
    """No difference from it: only the paper's experiment is known to be ours."""
    made = paper_project
    cell = replace(made.cell("hqdm", "w4a4"), method="dmq", bits=Bits.parse("w4a8"))
    made.catalogue.methods["dmq"] = MethodSpec("dmq", "DMQ", "dmq", {})
    entry = made.suite.models[0]
    made.suite = replace(made.suite, models=(replace(entry, cells=(*entry.cells, cell)),))
    made.write_metrics(cell)
    made.write_training(cell, options={"policy": "full", "attention": "quantized"})
    made.write_history(cell)
    texts = written(made, 1)
    found = row(markdown_rows(texts["md"]), "DMQ†", "4/8")
    assert (found["FID ↓ quoted"], found["FID ↓ measured"]) == ("9.68", "9.50")
    assert found[f"FID ↓ measured {MINUS} quoted"] == ""
    line = csv_line(texts["csv"], section="values", method="dmq", bits="w4a8", metric="fid")
    assert (line["quoted_from"], line["measured_minus_quoted"]) == ("dmq", "")


def test_grids_are_named_and_what_sets_a_row_apart_is_marked(project: Project) -> None:
    for seed in range(3):
        options = {"policy": "official", "weight_grids": "tensor", "activation_steps": "shared"}
        project.write_training(project.cell("hqdm", "w4a4", seed), options=options)
    options = {"policy": "official", "activation_channels": "channel", "attention": "quantized"}
    project.write_training(project.cell("hqdm", "w8a3"), options=options)
    texts = written(project, 1)
    rows = markdown_rows(texts["md"])
    grids = "Grids: weight; input"
    assert row(rows, "EfficientDM", "4/4")[grids] == "channel; tensor, per step"
    assert row(rows, "HQ-DM", "4/4")[grids] == "tensor; tensor"
    assert row(rows, "HQ-DM†", "8/3")[grids] == "channel; channel, per step"
    assert row(rows, "FP", "32/32")[grids] == row(rows, "QuEST", "4/4")[grids] == ""
    assert "† A grid for each input channel, which cannot be taken out of an integer" in texts["md"]
    assert "; products inside attention quantized too." in texts["md"]
    assert "Grids: before the semicolon of a weight" in texts["md"]
    line = csv_line(texts["csv"], section="values", method="hqdm", bits="w8a3", metric="fid")
    assert line["grids"] == "channel; channel, per step"
    assert line["remarks"].endswith("; products inside attention quantized too")


def test_one_seed_has_the_noise_error_of_its_held_out_images(project: Project) -> None:
    """Two images of equal energy with errors 0 and e: resampling gives 0, e/2 or e."""
    for method, error in (("efficientdm", 0.08), ("hqdm", 0.06)):
        found = {"errors": [0.0, error], "energies": [1.0, 1.0]}
        project.write_training(
            project.cell(method, "w8a3"), noise_error=error / 2, noise_errors=found
        )
    texts = written(project, 1)
    line = csv_line(texts["csv"], section="paired", bits="w8a3", metric="noise_error")
    assert line["source"] == "images"
    # Errors of the two are in one proportion, image by image, and so are their replicates.
    low, high = (float(line[end]) for end in ("low", "high"))
    own = csv_line(texts["csv"], section="values", method="hqdm", bits="w8a3", metric="noise_error")
    ends = [float(own[end]) for end in ("low", "high")]
    assert ends == pytest.approx([0.0, 0.06], abs=0.003)  # basic: mirrored at the value
    assert high - low == pytest.approx((ends[1] - ends[0]) / 3)
    assert "0.03000 [" in row(markdown_rows(texts["md"]), "HQ-DM", "8/3")["Noise error ↓"]


def test_single_seeds_dashes_and_blanks(project: Project) -> None:
    rows = markdown_rows(written(project, 1)["md"])
    ours_only = row(rows, "HQ-DM", "8/3")
    assert (ours_only["n"], ours_only["FID ↓ quoted"]) == ("1", "")
    assert ours_only["FID-like ↓ measured"] == "3.000"
    full = row(rows, "FP", "32/32")
    assert (full["FID-like ↓ measured"], full["Noise error ↓"]) == ("0.500", "")
    quest = row(rows, "QuEST", "4/4")
    assert (quest["n"], quest["sFID ↓ quoted"], quest["sFID-like ↓ measured"]) == ("", "—", "")
    assert quest["FID ↓ quoted"] == "5.98"
    not_run = row(rows, "HQ-DM", "8/8")
    assert (not_run["n"], not_run["IS ↑ quoted"], not_run["IS-like ↑ measured"]) == (
        "",
        "363.22",
        "",
    )


def test_another_experiment_gets_no_difference_column(project: Project) -> None:
    texts = written(project, 1)
    assert "other experiments, not comparable in absolute value" in texts["md"]
    assert "other experiments, not comparable in absolute value" in texts["tex"]
    assert f"measured {MINUS} quoted" not in texts["md"]
    line = csv_line(texts["csv"], section="values", method="hqdm", bits="w4a4", metric="fid")
    assert (line["comparable"], line["measured_minus_quoted"]) == ("no", "")


def test_the_papers_own_experiment_gets_one(paper_project: Project) -> None:
    texts = written(paper_project, 1)
    assert "other experiments" not in texts["md"]
    assert "-like" not in texts["md"]
    found = row(markdown_rows(texts["md"]), "HQ-DM", "4/4")
    assert found[f"FID ↓ measured {MINUS} quoted"] == f"{MINUS}5.08"  # 1.5 - 6.58
    assert found[f"Precision ↑ (%) measured {MINUS} quoted"] == f"{MINUS}9.44"  # 75 - 84.44
    assert row(markdown_rows(texts["md"]), "QuEST", "4/4")[f"FID ↓ measured {MINUS} quoted"] == ""
    line = csv_line(texts["csv"], section="values", method="hqdm", bits="w4a4", metric="fid")
    assert line["comparable"] == "yes"
    assert float(line["measured_minus_quoted"]) == pytest.approx(-5.08)


def test_paired_comparison(project: Project) -> None:
    texts = written(project, 1)
    wanted = {"section": "paired", "bits": "w4a4", "method": "hqdm", "against": "efficientdm"}
    line = csv_line(texts["csv"], **wanted, metric="fid")
    assert float(line["measured"]) == pytest.approx(-0.5)
    assert float(line["half_width"]) == pytest.approx(DIFFERENCE_WIDTH)
    assert (line["n"], line["verdict"]) == ("3", "HQ-DM ahead")
    # IS is 7 - FID here: the same numbers with the other sign and the other arrow.
    line = csv_line(texts["csv"], **wanted, metric="is")
    assert float(line["measured"]) == pytest.approx(0.5)
    assert line["verdict"] == "HQ-DM ahead"
    line = csv_line(texts["csv"], **wanted, metric="precision")
    assert (float(line["measured"]), line["verdict"]) == (0.0, "inconclusive")
    single = csv_line(texts["csv"], **(wanted | {"bits": "w8a3"}), metric="fid")
    assert (single["n"], single["half_width"], single["verdict"]) == ("1", "", "inconclusive")
    paired = [r for r in markdown_rows(texts["md"]) if "Verdict" in r]
    assert len(paired) == 2 * 7
    fid = paired[1]
    assert fid["Difference and 95 % interval"] == f"{MINUS}0.500 ± {DIFFERENCE_WIDTH:.3f}"
    assert fid["Verdict"] == "HQ-DM ahead"


def test_a_lead_of_the_other_method_is_called(project: Project) -> None:
    for seed in range(3):
        cell = project.cell("hqdm", "w4a4", seed)
        values = {"fid": 9.0 + seed, "sfid": 1.0, "is": 1.0, "precision": 0.1, "recall": 0.1}
        project.write_metrics(cell, values=values)
    text = written(project, 1)["csv"]
    line = csv_line(text, section="paired", bits="w4a4", metric="fid")
    assert (float(line["measured"]), line["verdict"]) == (8.0, "EfficientDM ahead")


def images_bootstrapped(project: Project) -> ResultSet:
    """W8A3 has one seed: FID 4 and 3, each replicate drawn alike for both."""
    noise = np.linspace(-1, 1, 201)  # 2.5 % and 97.5 % quantiles at -0.95 and 0.95
    results = ResultSet.load(project.root, project.suite, ["imagenet"])
    drawn = []
    for result in results.results:
        assert result.metrics is not None
        values = result.metrics["values"]
        replicates = {"fid": values["fid"] + noise, "precision": values["precision"] + noise / 50}
        drawn.append(replace(result, replicates=replicates))
    return replace(results, results=tuple(drawn))


def test_one_seed_has_the_interval_of_its_images(project: Project) -> None:
    (table,) = build_tables(1, project.root, images_bootstrapped(project), project.catalogue)
    text = markdown(table)
    rows = markdown_rows(text)
    assert row(rows, "HQ-DM", "8/3")["FID-like ↓ measured"] == "**3.000 [2.050, 3.950]**"
    assert row(rows, "EfficientDM", "8/3")["FID-like ↓ measured"] == "4.000 [3.050, 4.950]"
    precision = "Precision ↑ (%, mini features) measured"
    assert row(rows, "HQ-DM", "8/3")[precision] == "75.0 [73.1, 76.9]"
    assert row(rows, "HQ-DM", "8/3")["sFID-like ↓ measured"] == "6.000"  # not bootstrapped
    # Several seeds keep the interval over seeds.
    assert " ± " in row(rows, "HQ-DM", "4/4")["FID-like ↓ measured"]
    assert "over the images of one training seed, at their number" in text
    assert "A number without either comes from one training seed" in text
    lines = csv_text([table])
    line = csv_line(lines, section="values", method="hqdm", bits="w8a3", metric="fid")
    assert (line["source"], line["half_width"], line["best"]) == ("images", "", "yes")
    assert (float(line["low"]), float(line["high"])) == pytest.approx((2.05, 3.95))
    line = csv_line(lines, section="values", method="hqdm", bits="w4a4", metric="fid")
    assert line["source"] == "seeds"
    assert float(line["high"]) - float(line["low"]) == pytest.approx(2 * float(line["half_width"]))


def test_one_seed_is_compared_by_the_same_draws(project: Project) -> None:
    """Each interval is 1.9 wide, that of the difference has no width at all."""
    (table,) = build_tables(1, project.root, images_bootstrapped(project), project.catalogue)
    line = csv_line(csv_text([table]), section="paired", bits="w8a3", metric="fid")
    assert (float(line["low"]), float(line["high"])) == pytest.approx((-1, -1))
    assert (line["source"], line["verdict"]) == ("images", "HQ-DM ahead")
    assert "with these two students, and another seed may turn it" in markdown(table)


def test_extra_metrics_are_in_the_csv_only(project: Project) -> None:
    assert "kid" not in written(project, 1)["csv"]
    for cell in project.suite.cells:
        project.write_metrics(cell)
        content = read_json(project.layout.metrics(cell))
        project.write_metrics(cell, values=content["values"] | {"kid": 0.5, "is_shuffled": 8.0})
    texts = written(project, 1)
    line = csv_line(texts["csv"], section="values", method="hqdm", bits="w4a4", metric="kid")
    assert (float(line["measured"]), line["quoted"]) == (0.5, "")
    assert csv_line(texts["csv"], section="paired", bits="w4a4", metric="is_shuffled")
    for text in (texts["md"], texts["tex"]):
        assert "KID" not in text
        assert "shuffled IS" not in text


def test_table_4(project: Project) -> None:
    texts = written(project, 4)
    rows = [r for r in markdown_rows(texts["md"]) if "Method" in r]
    assert [(r["k"], r["W/A"], r["n"]) for r in rows] == [
        ("3", "4/4", "1"),
        ("4", "4/4", ""),
        ("5", "4/4", "3"),
        ("6", "4/4", ""),
    ]
    assert rows[0]["FID-like ↓ measured"] == "0.750"
    assert rows[2]["FID-like ↓ measured"].startswith("1.500 ± ")
    assert [r["FID ↓ quoted"] for r in rows] == ["6.70", "6.68", "6.58", "6.73"]
    line = csv_line(texts["csv"], section="values", order="5", metric="is")
    assert (line["method"], line["quoted"]) == ("hqdm", "248.3")
    line = csv_line(texts["csv"], section="paired", metric="fid")
    assert (line["method"], line["against"], line["n"]) == ("hqdm-k3", "hqdm", "1")
    assert float(line["measured"]) == pytest.approx(0.25)


def test_protocol_and_coverage_lines(project: Project) -> None:
    text = written(project, 1)["md"]
    assert (
        "20 DDIM steps, eta 0, guidance 1.5, balanced labels, 8 images against 64 of scenes, "
        "features of mini-classifier (sha256 0123456789ab)" in text
    )
    assert "W4A4, W8A3: 75.0 % at these bits, 5.0 % at W8A8, 20.0 % in full precision." in text
    assert "biased upwards" in text
    assert "First-order bias" not in text  # these results record none


def test_a_method_of_two_engines_is_named_with_its_bits(project: Project) -> None:
    for cell in project.suite.cells:
        if not cell.bits.full_precision:
            integer = cell.method == "efficientdm" or cell.bits.label == "W4A4"
            project.write_metrics(cell, engine={"engine": "integer" if integer else "fake"})
    (text,) = [line for line in written(project, 1)["md"].splitlines() if "int8 integers" in line]
    assert "Drawn in int8 integers: EfficientDM, HQ-DM (W4A4); fake" in text
    assert "in floating point: HQ-DM (W8A3). Codes" in text


def test_engines_are_named_where_one_is_integer(project: Project) -> None:
    for cell in project.suite.cells:
        if cell.method != "fp":
            integer = cell.method.startswith("hqdm")
            project.write_metrics(cell, engine={"engine": "integer" if integer else "fake"})
    text = written(project, 1)["md"]
    assert (
        "Drawn in int8 integers: HQ-DM; fake-quantized in floating point: EfficientDM. Codes"
        in text
    )
    for cell in project.suite.cells:
        if cell.method != "fp":
            project.write_metrics(cell, engine={"engine": "fake"})
    assert "Drawn in int8" not in written(project, 1)["md"]


def test_the_bias_of_the_count_is_printed(project: Project) -> None:
    for cell in project.suite.cells:
        project.write_metrics(cell, bias={"fid": 0.4159, "sfid": 7.0312})
    text = written(project, 1)["md"]
    assert (
        "read differences, not levels. First-order bias c/N at 8 images, what a perfect model "
        "would score: 0.416 of FID-like, 7.031 of sFID-like.\n" in text
    )


def test_latex_is_well_formed(project: Project) -> None:
    text = written(project, 1)["tex"]
    assert text.isascii()
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 2
    bare = re.sub(r"\\[{}%]", "", text)
    assert bare.count("{") == bare.count("}")
    for part in re.findall(r"\\begin{tabular}{(.*?)}\n(.*?)\\end{tabular}", text, re.S):
        alignment, body = part
        for line in body.splitlines():
            if line.endswith("\\\\"):
                cells = re.sub(r"\\shortstack\[r\]{.*?}", "", line)
                spans = [int(n) for n in re.findall(r"\\multicolumn{(\d+)}", cells)]
                assert cells.count(" & ") + 1 + sum(spans) - len(spans) == len(alignment)
    assert "\\multicolumn{2}{c}{FID $\\downarrow$}" in text
    assert f"2.000 $\\pm$ {EFFICIENTDM_WIDTH:.3f}" in text
    assert "75.0~\\% at these bits" in text


def test_escape() -> None:
    assert escape(f"a_b 5 % {{x}} \\ #&$ {MINUS}1 ± 2") == (
        r"a\_b 5~\% \{x\} \textbackslash{} \#\&\$ $-$1 $\pm$ 2"
    )


def test_files_do_not_change_by_themselves(project: Project) -> None:
    first = written(project, 1)
    assert written(project, 1) == first


def test_two_models_of_a_data_set_share_the_files(project: Project) -> None:
    entry = project.suite.models[0]
    cells = tuple(replace(cell, model="second") for cell in entry.cells)
    project.catalogue.models["second"] = replace(
        project.catalogue.models["imagenet"], name="second"
    )
    project.suite = replace(
        project.suite, models=(entry, replace(entry, model="second", cells=cells))
    )
    project.write_results()
    texts = written(project, 1)
    assert texts["md"].count("## Table 1: ") == 2
    assert texts["tex"].count("\\begin{table}") == 4
    line = csv_line(texts["csv"], section="paired", model="second", bits="w4a4", metric="fid")
    assert float(line["measured"]) == pytest.approx(-0.5)


def test_mixed_protocols_and_extractors_are_refused(project: Project) -> None:
    cell = project.cell("hqdm", "w4a4", 1)
    project.write_metrics(cell, protocol=project.protocol.asdict() | {"guidance": 3.0})
    with pytest.raises(BenchError, match=r"hqdm/w4a4/seed1 .* under different protocols"):
        written(project, 1)
    project.write_metrics(cell, extractor={"name": "mini-classifier", "sha256": "f" * 64})
    with pytest.raises(BenchError, match=r"hqdm/w4a4/seed1 .* under different extractors"):
        written(project, 1)


def test_what_a_suite_cannot_fill_is_an_error(project: Project) -> None:
    with pytest.raises(BenchError, match="no model of bedrooms, which table 2 shows"):
        written(project, 2)
    with pytest.raises(BenchError, match="no table 5"):
        written(project, 5)


def test_a_missing_result_leaves_no_table(project: Project) -> None:
    project.layout.metrics(project.cell("hqdm", "w4a4", 2)).unlink()
    with pytest.raises(BenchError, match=r"snakemake results/tiny/imagenet/hqdm/w4a4/seed2"):
        written(project, 1)
    assert not (project.root / "results" / "tiny" / "tables").exists()


def test_tables_do_not_need_torch(tmp_path: Path) -> None:
    code = "import sys, hqdm_bench.report.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
