"""Full-precision baselines: the gate before training, and the search for a protocol."""

import csv
import math
import shutil
from pathlib import Path

import pytest

from hqdm_bench.catalogue import Layout, load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import read_json, write_json
from hqdm_bench.report.acceptance import judge, read_acceptance
from hqdm_bench.report.baselines import baseline_rows

ROOT = Path(__file__).parents[2]
GOOD = {"fid": 11.2, "sfid": 7.7, "is": 365.0, "precision": 0.935, "recall": 0.28}
PAPER_BEDROOMS = {"fid": 7.56, "sfid": 14.06, "precision": 0.5195, "recall": 0.4118}


@pytest.fixture
def project(tmp_path):
    for name in ("config", "paper"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def write_metrics(root, suite, model, protocol, values):
    catalogue = load_catalogue(root)
    entry = catalogue.suite(suite).model(model)
    cell = next(part.cell for part in entry.baselines if part.cell.protocol == protocol)
    write_json(
        Layout(root).metrics(cell),
        {
            "cell": cell.asdict(),
            "protocol": catalogue.protocol(protocol).asdict(),
            "extractor": {"name": "inception", "sha256": "0" * 64},
            "values": values,
        },
    )


def accept(root, *arguments):
    return main(["accept", "--suite", "paper", "--model", "imagenet", "--root", str(root)])


def test_a_baseline_in_range_is_accepted(project):
    write_metrics(project, "paper", "imagenet", "imagenet", GOOD)
    assert accept(project) == 0
    path = Layout(project).acceptance("paper", "imagenet")
    content = read_json(path)
    assert content["accepted"] is True
    assert {check["metric"] for check in content["checks"]} == {"fid", "sfid", "is", "precision"}
    assert read_acceptance(path).sentence().startswith("Full-precision baseline as expected: FID")


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [("fid", 10.89, "FID 10.89"), ("precision", 0.9401, "Precision 94.01 %"), ("sfid", 20.6, "20")],
)
def test_a_baseline_out_of_range_stops_training(project, capsys, metric, value, shown):
    write_metrics(project, "paper", "imagenet", "imagenet", GOOD | {metric: value})
    assert accept(project) == 2
    message = capsys.readouterr().err
    assert shown in message
    assert "under imagenet (expected" in message
    assert "--config acceptance=report" in message
    assert not Layout(project).acceptance("paper", "imagenet").exists()


def test_limits_belong_to_the_range(project):
    for fid in (10.9, 11.5):
        write_metrics(project, "paper", "imagenet", "imagenet", GOOD | {"fid": fid})
        assert accept(project) == 0


def test_policy_report_writes_the_failure_down_and_tables_say_so(project):
    write_metrics(project, "paper", "imagenet", "imagenet", GOOD | {"fid": 14.0})
    arguments = ["accept", "--suite", "paper", "--model", "imagenet", "--root", str(project)]
    assert main([*arguments, "--policy", "report"]) == 0
    acceptance = read_acceptance(Layout(project).acceptance("paper", "imagenet"))
    assert not acceptance.accepted
    assert acceptance.sentence().startswith("FULL-PRECISION BASELINE OUT OF RANGE")
    assert "FID 14.00 under imagenet (expected 10.9 to 11.5)" in acceptance.sentence()


def test_nan_is_not_in_range(project):
    write_metrics(project, "paper", "imagenet", "imagenet", GOOD)
    entry = load_catalogue(project).suite("paper").model("imagenet")
    acceptance = judge(Layout(project), entry)
    broken = acceptance.checks[0].__class__("p", "fid", math.nan, 0.0, 1000.0)
    assert not broken.within


def test_metrics_of_another_cell_are_refused(project):
    write_metrics(project, "paper", "bedrooms", "bedrooms-200", PAPER_BEDROOMS)
    layout = Layout(project)
    catalogue = load_catalogue(project)
    (entry,) = catalogue.suite("paper").model("bedrooms").baselines
    other = read_json(layout.metrics(entry.cell))
    other["cell"]["protocol"] = "bedrooms"
    write_json(layout.metrics(entry.cell), other)
    with pytest.raises(BenchError, match="was not written for cell"):
        judge(layout, catalogue.suite("paper").model("bedrooms"))


def fill_search(project, closest):
    suite = load_catalogue(project).suite("search")
    for entry in suite.models:
        for index, baseline in enumerate(entry.baselines):
            factor = 1.3 + 0.1 * index + 0.01 * len(entry.model)  # no ties
            values = {key: value * factor for key, value in PAPER_BEDROOMS.items()}
            if (entry.model, baseline.cell.protocol) == closest:
                values = {key: value * 1.01 for key, value in PAPER_BEDROOMS.items()}
            write_metrics(
                project, "search", entry.model, baseline.cell.protocol, {"is": 2.0} | values
            )


def test_search_marks_the_protocol_closest_to_the_papers_row(project):
    fill_search(project, ("bedrooms-raw", "bedrooms-eta0"))
    assert main(["baselines", "--suite", "search", "--root", str(project)]) == 0
    layout = Layout(project)
    with layout.baselines("search", "csv").open() as file:
        rows = list(csv.DictReader(file))
    bedrooms = [row for row in rows if row["model"].startswith("bedrooms")]
    assert len(bedrooms) == 7
    best = min(bedrooms, key=lambda row: float(row["distance_to_paper"]))
    assert (best["model"], best["protocol"], best["eta"]) == ("bedrooms-raw", "bedrooms-eta0", "0")
    assert best["weights"] == "as stored"
    assert float(best["distance_to_paper"]) == pytest.approx(0.01 / 1.01)
    text = layout.baselines("search", "md").read_text()
    assert text.count("**") == 2 * 3  # one closest setting a data set
    assert "| *paper* |  |  |  |  |  |  |  | 7.56 | 14.06 | 51.95 | 41.18 |  |  |" in text
    assert "**0.010**" in text


def test_search_compares_eta_steps_and_weights(project):
    """The unknowns of the paper's LSUN rows: each appears with more than one value."""
    fill_search(project, None)
    rows = baseline_rows(project, load_catalogue(project).suite("search"), load_catalogue(project))
    for dataset in ("bedrooms", "churches"):
        own = [row for row in rows if row.dataset == dataset]
        for unknown in (
            {row.protocol.eta for row in own},
            {row.protocol.steps for row in own},
            {row.weights for row in own},
        ):
            assert len(unknown) >= 2


def test_a_metric_of_zero_is_as_far_as_can_be(project):
    """A collapsed model has no recall at all."""
    fill_search(project, None)
    broken = {"is": 1.0, **PAPER_BEDROOMS, "recall": 0.0}
    write_metrics(project, "search", "bedrooms", "bedrooms-20", broken)
    rows = baseline_rows(project, load_catalogue(project).suite("search"), load_catalogue(project))
    (row,) = [row for row in rows if row.protocol.name == "bedrooms-20"]
    assert row.distance == pytest.approx(0.25)


def test_a_suite_without_baselines_says_so(project):
    with pytest.raises(BenchError, match="suite 'mini' has no baselines"):
        baseline_rows(project, load_catalogue(project).suite("mini"), load_catalogue(project))
