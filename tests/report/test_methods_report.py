"""Report `methods`: ranks by hand, costs as recorded, older results with empty cells."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hqdm_bench.catalogue import SuiteModel
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json
from hqdm_bench.report import write_methods
from hqdm_bench.report.side_by_side import read_side_by_side

if TYPE_CHECKING:
    from conftest import Project


def written(project: Project) -> dict[str, str]:
    write_methods(project.root, project.suite, project.catalogue)
    paths = {s: project.layout.report("tiny", "methods", s) for s in ("csv", "md", "tex")}
    return {suffix: path.read_text(encoding="utf-8") for suffix, path in paths.items()}


def grids(text: str) -> list[list[dict[str, str]]]:
    """Every grid of a page."""
    found: list[list[dict[str, str]]] = []
    head: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
            found.append([])
        elif not set("".join(cells)) <= set(":-"):
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def record_costs(project: Project) -> None:
    for cell in project.suite.cells:
        if not cell.bits.full_precision:
            project.write_training(cell, cost={"samples": 12800, "extra_parameters": 1460})
            project.write_cost(cell)


def test_ranks_of_the_methods(project: Project) -> None:
    """FID 0.5, 1.4, 2.6 against 1, 2, 3: ahead by 0.5 ± 0.25; one seed at W8A3 tells nothing."""
    ranked, _ = grids(written(project)["md"])
    rows = [(r["W/A"], r["Method"], r["FID-like ↓ rank"], r["Noise error ↓ rank"]) for r in ranked]
    assert rows == [
        ("32/32", "FP", "", ""),
        ("4/4", "HQ-DM", "**1**", "**1**"),
        ("4/4", "EfficientDM", "2", "2"),
        ("8/3", "HQ-DM", "1 to 2", "1 to 2"),
        ("8/3", "EfficientDM", "1 to 2", "1 to 2"),
    ]
    assert ranked[1]["PSNR to FP ↑ (dB) rank"] == "**1**"
    assert ranked[1]["FID-like ↓"].startswith("1.500 ± ")
    assert ranked[0]["FID-like ↓"] == "0.500"


def test_blocks_do_not_follow_the_order_of_the_suite(project: Project) -> None:
    (entry,) = project.suite.models
    project.suite = replace(project.suite, models=(replace(entry, cells=entry.cells[::-1]),))
    ranked, _ = grids(written(project)["md"])
    assert [row["W/A"] for row in ranked] == ["32/32", "4/4", "4/4", "8/3", "8/3"]


def test_numbers_of_the_csv(project: Project) -> None:
    rows = csv_rows(written(project)["csv"])
    (line,) = [
        row
        for row in rows
        if (row["method"], row["bits"], row["metric"]) == ("efficientdm", "w4a4", "fid")
    ]
    assert (line["rank_first"], line["rank_last"], line["n"], line["seeds"]) == (
        "2",
        "2",
        "3",
        "0 1 2",
    )
    assert (float(line["mean"]), line["source"]) == (pytest.approx(2.0), "seeds")
    assert (float(line["mac_share"]), line["packed_bytes"]) == (0.75, "2050000")
    assert line["grids"] == "channel; tensor, per step"
    assert {row["method"] for row in rows} == {"fp", "efficientdm", "hqdm"}  # no order of Table 4
    full = [row for row in rows if row["method"] == "fp"]
    assert {row["metric"] for row in full} == {"fid"}
    assert {row["rank_first"] for row in full} == {""}


def test_costs_are_those_of_the_run(project: Project) -> None:
    record_costs(project)
    texts = written(project)
    _, costs = grids(texts["md"])
    assert len(costs) == 4  # full precision costs nothing
    row = costs[0]
    assert (row["Time (s)"], row["CPU time (s)"], row["Peak memory (MiB)"]) == (
        "10.5",
        "12.2",
        "812",
    )
    assert "Peak GPU memory (MiB)" not in costs[0]  # no GPU, no column
    assert (row["Network inputs seen"], row["Extra parameters"]) == ("12 800", "1460")
    assert row["Time by stage (s)"] == "calibrate 1.5, learn steps 9.0"
    assert (row["Low-bit MACs (%)"], row["Size (MB)"]) == ("75.0", "2.05")
    line = next(row for row in csv_rows(texts["csv"]) if row["method"] == "hqdm")
    assert float(line["seconds"]) == 10.5
    assert line["seconds_by_stage"] == "1 calibrate: 1.5; 2 learn steps: 9.0"
    assert (line["samples"], line["extra_parameters"]) == ("12800.0", "1460")


def test_a_cost_of_another_cell_is_refused(project: Project) -> None:
    record_costs(project)
    first, second = (project.cell(method, "w4a4") for method in ("hqdm", "efficientdm"))
    shutil.copy(project.layout.cost(first), project.layout.cost(second))
    with pytest.raises(BenchError, match=r"cost\.json"):
        written(project)


def test_results_without_costs_have_no_columns_of_them(project: Project) -> None:
    texts = written(project)
    _, costs = grids(texts["md"])
    names = {"Time (s)", "CPU time (s)", "Peak memory (MiB)", "Network inputs seen"}
    assert not names & costs[0].keys()  # a column in which nobody has anything is left out
    assert {row["seconds"] for row in csv_rows(texts["csv"])} == {""}
    assert "Empty: the run recorded none." in texts["md"]


def test_what_sets_a_method_apart_is_marked_in_both_tables(project: Project) -> None:
    options = {"policy": "official", "attention": "quantized"}
    project.write_training(project.cell("hqdm", "w8a3"), options=options)
    ranked, costs = grids(written(project)["md"])
    for table in (ranked, costs):
        assert [row["Method"] for row in table if row["W/A"] == "8/3"] == ["HQ-DM†", "EfficientDM"]
    assert "- † Products inside attention quantized too." in written(project)["md"]


def test_what_it_cannot_show_is_said_below(project: Project) -> None:
    cells = [cell for cell in project.suite.cells if not cell.bits.full_precision]
    trained = {"steps": 20, "trajectories": 8}
    scale = {"updates": 0.005, "rates": 20, "data": 0.1}
    fitted = {**trained, "post_training": {"scale": scale}}
    for place, cell in enumerate(cells):
        content = read_json(project.layout.training(cell))
        recipe = fitted if place else trained
        project.write_training(cell, recipe=recipe, noise_error=content["noise_error"])
    text = written(project)["md"]
    below = text.partition("## What it cannot show")[2]
    assert "Which method is ahead on the paper's models" in below
    assert (
        "post-training methods had about 0.5 % of their updates, at 20 times the learning rates of "
        "weights, and 10 % of their calibration images." in below
    )
    assert "trained students had 160 updates of the paper's 16 000." in below
    assert "where a method has one seed" in below
    assert "FID in Inception features" in below


def test_the_papers_own_models_have_other_limits(paper_project: Project) -> None:
    below = written(paper_project)["md"].partition("## What it cannot show")[2]
    assert "these are small" not in below
    assert "a shared place says that these images and seeds do not tell them apart" in below


def test_without_images_there_is_the_noise_error(project: Project) -> None:
    entry = project.suite.models[0]
    students = tuple(cell for cell in entry.cells if cell.method != "fp")
    project.suite = replace(
        project.suite, models=(replace(entry, cells=students, images=False),), tables=()
    )
    ranked, _ = grids(written(project)["md"])
    assert set(ranked[0]) == {"W/A", "Method", "n", "Noise error ↓ rank", "Noise error ↓"}
    (group,) = read_side_by_side(project.root, project.suite, project.catalogue)
    assert group.keys == ("noise_error",)


def test_latex_is_ascii_and_balanced(project: Project) -> None:
    text = written(project)["tex"]
    assert text.isascii()
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 2
    assert "What it cannot show:" in text


def test_a_suite_without_students_is_refused(project: Project) -> None:
    entry = project.suite.models[0]
    full = tuple(cell for cell in entry.cells if cell.method == "fp")
    lone = SuiteModel(entry.model, entry.protocol, entry.recipe, full)
    with pytest.raises(BenchError, match="suite 'tiny' trains no student"):
        write_methods(project.root, replace(project.suite, models=(lone,)), project.catalogue)


def test_files_do_not_change_by_themselves(project: Project) -> None:
    record_costs(project)
    assert written(project) == written(project)
