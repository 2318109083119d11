"""Parts of the page by hand: words, whiskers, curves, costs, provenance, previews, studies."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from hqdm_bench.cli import main
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_json
from hqdm_bench.report.cost import JobCost, job_costs
from hqdm_bench.report.estimates import Estimate
from hqdm_bench.report.page import write_suite_page
from hqdm_bench.report.page.colours import looks_of, palette
from hqdm_bench.report.page.losses import loss_panels
from hqdm_bench.report.page.matrix import Matrix, MatrixRow, table_matrix
from hqdm_bench.report.page.provenance import read_provenance
from hqdm_bench.report.page.sections import study_sections
from hqdm_bench.report.page.verdict_map import verdict_map
from hqdm_bench.report.page.words import Scope, scope
from hqdm_bench.report.preview import PREVIEW_IMAGES, read_preview, write_preview
from hqdm_bench.report.results import ResultSet
from hqdm_bench.report.table_build import build_tables
from hqdm_bench.report.table_text import MINUS

if TYPE_CHECKING:
    from pathlib import Path


def words(project: Any) -> Scope:
    results = ResultSet.load(project.root, project.suite)
    return scope(project.suite, project.catalogue, results)


def test_a_toy_suite_claims_nothing(project: Any) -> None:
    found = words(project)
    assert found.can == ("that every step of the workflow runs and that its outputs fit together",)
    assert "8 images a cell measure nothing" in found.cannot[0]


def test_an_embedded_suite_reproduces_no_number(project: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("hqdm_bench.report.page.words.TOY_IMAGES", 5)
    found = words(project)
    assert found.can[1].startswith("whether that depends on the training seed")
    assert found.cannot[0].startswith("a number of the paper: models, data, image counts")
    assert found.cannot[1].startswith("FID, sFID or IS in Inception features")
    assert found.numbers == (
        ("1", "model"),
        ("9", "students"),
        ("80", "images"),
        ("1 to 3", "training seeds a cell"),
    )


def test_a_paper_suite_sets_values_side_by_side(paper_project: Any) -> None:
    found = words(paper_project)
    assert found.lead.startswith("The paper's experiment at its own scale: one CompVis model,")
    assert found.can[0] == "our value beside the paper's, and their difference"
    assert "one seed" in found.cannot[0]


@pytest.fixture
def matrix(project: Any) -> Matrix:
    results = ResultSet.load(project.root, project.suite)
    (table,) = build_tables(1, project.root, results, project.catalogue)
    found = table_matrix(table)
    assert found is not None
    return found


def cell(matrix: Matrix, row: int, symbol: str) -> Any:
    place = [head for head, _ in matrix.heads].index(symbol)
    return matrix.rows[row].cells[place]


def test_right_of_the_middle_the_first_method_is_better(matrix: Matrix) -> None:
    """FID of HQ-DM minus EfficientDM at W4A4: -0.5, -0.6, -0.4; lower is better."""
    reach = 4.302652729911275 * 0.1 / math.sqrt(3)  # t(0.975, 2) times the standard error
    fid = cell(matrix, 0, "FID-like")
    assert fid.ahead == "hqdm"
    assert fid.number == pytest.approx(-0.5)
    # At W8A3 one seed differs by -1, which is the end of the scale.
    assert fid.whisker.middle == pytest.approx(50 + 46 * 0.5, abs=0.06)
    low, high = fid.whisker.ends
    assert low == pytest.approx(50 + 46 * (0.5 - reach), abs=0.06)
    assert high == pytest.approx(50 + 46 * (0.5 + reach), abs=0.06)
    alone = cell(matrix, 1, "FID-like")
    assert alone.whisker.middle == pytest.approx(96.0)
    assert alone.whisker.ends is None
    assert alone.ahead is None
    # IS is 7 - FID and higher is better: the same drawing, the other sign.
    score = cell(matrix, 0, "IS-like")
    assert score.number == pytest.approx(0.5)
    assert score.whisker == fid.whisker


def test_an_interval_over_images_is_told_from_one_over_seeds(project: Any) -> None:
    results = ResultSet.load(project.root, project.suite)
    (table,) = build_tables(1, project.root, results, project.catalogue)
    found = Estimate(-1.0, -1.5, -0.75, 1, "images")
    changed = tuple(
        replace(entry, difference=found, verdict=f"{entry.left_title} ahead")
        for entry in table.comparisons
        if entry.key == "fid"
    )
    matrix = table_matrix(replace(table, comparisons=changed))
    assert matrix is not None
    one = matrix.rows[1].cells[0]
    assert one is not None
    assert one.of_images
    assert one.ahead == "hqdm"
    assert one.spread.replace(MINUS, "-") == "[-1.500, -0.750]"
    # Lower is better: the lower end of the interval is the far right of the drawing.
    assert one.whisker.ends == (50 + 46 / 2, 96.0)
    assert one.whisker.middle == round(50 + 46 / 1.5, 1)


def test_no_difference_is_drawn_in_the_middle(matrix: Matrix) -> None:
    same = cell(matrix, 0, "Precision")
    assert same.number == 0
    assert same.whisker.middle == 50
    assert same.verdict == "inconclusive"


def test_the_map_keeps_the_order_of_the_quantities(matrix: Matrix) -> None:
    def part(model: str, symbols: str) -> Matrix:
        heads = tuple((symbol, "") for symbol in symbols)
        cells = tuple(f"{model}{symbol}" for symbol in symbols)
        row = MatrixRow("4/4", "hqdm", "HQ-DM", "EfficientDM", "1", "", cells)  # type: ignore[arg-type]
        return Matrix(model, heads, (row,))

    found = verdict_map([part("x", "ABCXY"), part("y", "BCDXY")])
    assert found is not None
    assert "".join(symbol for symbol, _ in found.heads) == "ABCDXY"
    (_, (first,)), (_, (second,)) = found.models
    assert first.cells == ("xA", "xB", "xC", None, "xX", "xY")
    assert second.cells == (None, "yB", "yC", "yD", "yX", "yY")
    assert verdict_map([]) is None


def test_students_that_are_not_trained_have_no_curve(project: Any) -> None:
    looks = looks_of(cell.method for cell in project.suite.cells if cell.method != "fp")
    for cell in project.suite.cells:
        if (cell.method, str(cell.bits)) != ("hqdm", "w4a4"):
            project.write_history(cell, epochs=0)
    (panel,) = loss_panels(project.root, project.suite, project.catalogue, looks)
    assert (panel.bits, [line.method for line in panel.lines]) == ("W4A4", ["hqdm"])


def test_losses_are_drawn_to_scale(project: Any) -> None:
    """At step 0, epochs 1 to 3: 100 seed + 10 epoch, a range wide enough for a logarithmic axis."""
    looks = looks_of(["efficientdm", "hqdm", "hqdm-k3"])
    many, single = loss_panels(project.root, project.suite, project.catalogue, looks)
    assert [panel.bits for panel in (many, single)] == ["W4A4", "W8A3"]
    line = many.lines[0]
    assert len(line.seeds) == 3
    assert single.lines[0].seeds == ()

    def points(text: str) -> np.ndarray:
        return np.array([list(map(float, pair.split(","))) for pair in text.split()])

    mean = points(line.mean)
    np.testing.assert_allclose(mean[:, 0], [38, 135, 232])
    seeds = np.stack([points(seed)[:, 1] for seed in line.seeds])
    losses = np.log([[10, 20, 30], [110, 120, 130], [210, 220, 230]])
    # A straight line takes logarithms to places, so differences are in one proportion.
    slope = np.polyfit(losses.ravel(), seeds.ravel(), 1)[0]
    assert slope < 0
    np.testing.assert_allclose(seeds - seeds[0, 0], slope * (losses - losses[0, 0]), atol=0.15)
    assert many.text.startswith("Loss at the last of 3 epochs: EfficientDM 130, HQ-DM 130")
    assert [tick.text for tick in single.x_ticks] == ["1", "3"]
    assert [tick.text for tick in single.y_ticks] == ["0", "10", "20", "30"]
    assert single.y_ticks[0].place == 116


def test_a_model_of_other_studies_is_set_against_its_baseline(study: Any) -> None:
    for one in study.suite.cells:
        history(study, one)
    suite = replace(study.suite, reports=("differences",))
    (section,) = study_sections(study.root, suite, study.catalogue)
    assert section.values is None
    assert section.matrix is not None
    halved, wider = section.matrix.rows
    noise, fid, *_ = halved.cells
    # log2 ratios -1.1, -1 and -0.9: a geometric mean of one half, and less noise is better.
    assert noise is not None
    assert noise.number == pytest.approx(0.5)
    assert noise.ahead == "hqdm-k3"
    assert noise.whisker.middle > 50
    assert fid is not None
    assert fid.number == pytest.approx(-0.5)
    assert wider.cells[0] is not None
    assert wider.cells[0].ahead == "hqdm"
    assert wider.cells[0].whisker.middle < 50
    (judged,) = study_sections(
        study.root, replace(study.suite, reports=("comparison",)), study.catalogue
    )
    assert judged.matrix is not None
    assert judged.matrix.rows[0].cells[0] is not None
    assert judged.matrix.rows[0].cells[0].number == pytest.approx(2.0)  # HQ-DM over k = 3
    text = write_suite_page(study.root, suite, study.catalogue).read_text(encoding="utf-8")
    assert "order: 5 → 3" in text
    assert "This suite grades no claim" in text


def history(study: Any, one: Any) -> None:
    """Two updates of a student, which the study's fixture leaves out."""
    if one.method == "fp":
        write_json(study.layout.metrics(one), study.metrics(one, 0.5) | {"paired": None})
        return
    path = study.layout.history(one)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("update", "epoch", "step", "timestep", "loss"))
        writer.writerows([(1, 1, 1, 501, 2.0), (2, 1, 0, 1, 1.0)])


def test_costs_are_summed_by_kind_of_job(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "mini" / "benchmark"
    folder.mkdir(parents=True)
    assert job_costs(tmp_path, "mini") == ()
    head = "s\th:m:s\tmax_rss\tcpu_time\n"
    for name, row in {
        "mini-imagenet.hqdm.w4a4.seed0.train": "10.5\t0:00:10\t800.0\t9.0",
        "mini-imagenet.hqdm.w4a4.seed1.train": "20.0\t0:00:20\t700.0\t19.0",
        "mini-imagenet.fp.w32a32.seed0.mini-imagenet.sample12": "4.0\t0:00:04\t900.5\t3.0",
        "extractor": "3.0\t0:00:03\t500.0\t2.5",
    }.items():
        (folder / f"{name}.tsv").write_text(f"{head}{row}\n")
    assert job_costs(tmp_path, "mini") == (
        JobCost("extractor", 1, 3.0, 2.5, 500.0),
        JobCost("sample", 1, 4.0, 3.0, 900.5),
        JobCost("train", 2, 30.5, 28.0, 800.0),
    )


def test_recorded_versions_win_over_the_environments(project: Any) -> None:
    results = ResultSet.load(project.root, project.suite)
    found = read_provenance(project.root, project.suite, results)
    assert not found.recorded
    assert found.commit == ""
    assert dict(found.versions)["numpy"] == np.__version__
    assert found.extractors == (("mini-classifier", "0123456789abcdef" * 4),)
    assert found.protocols is not None
    assert ("guidance scale", ("1.5",)) in found.protocols.rows
    record = {"commit": "c0ffee", "python": "3.11.7", "packages": {"torch": "2.15.0"}}
    write_json(project.root / "results" / "tiny" / "run.json", record)
    found = read_provenance(project.root, project.suite, results)
    assert found.recorded
    assert found.commit == "c0ffee"
    assert found.versions == (("python", "3.11.7"), ("torch", "2.15.0"))


def test_dark_colours_are_lighter_and_every_method_has_one() -> None:
    for light, dark in palette().values():
        parts = [[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in (light, dark)]
        assert all(b >= a for a, b in zip(*parts, strict=True))
        assert sum(parts[1]) > sum(parts[0])
    looks = looks_of(["efficientdm", "hqdm", "hqdm-k3", "rtn", "something-new"])
    assert looks["hqdm"].name == "blue"
    assert {look.name for look in looks.values()} <= set(palette())
    assert len({(look.name, look.dashes) for look in looks.values()}) == len(looks)


def test_a_preview_is_the_first_images_in_a_row(project: Any) -> None:
    cell = project.cell("fp", "w32a32")
    project.write_samples(cell)
    shards = [project.layout.shard(cell, shard) for shard in range(2)]
    path = project.layout.preview(cell)
    write_preview(path, shards, 6)
    images = read_preview(path)
    assert images.shape == (6, 8, 8, 3)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image, np.full((8, 8, 3), 10 * number))
    assert PREVIEW_IMAGES >= 8
    write_preview(path, shards, 8)
    assert len(read_preview(path)) == 8


def test_a_preview_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "preview.png"
    with pytest.raises(BenchError, match=r"preview\.png does not exist"):
        read_preview(path)
    Image.new("RGB", (20, 8)).save(path)
    with pytest.raises(BenchError, match="20 pixels wide and 8 high, not a row of square images"):
        read_preview(path)


def test_the_verb_writes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "hqdm_bench.report.page.write_suite_page", lambda *given: calls.append(given)
    )
    assert main(["page", "--suite", "mini"]) == 0
    ((_, suite, catalogue),) = calls
    assert suite is catalogue.suite("mini")
