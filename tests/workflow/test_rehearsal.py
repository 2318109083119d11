"""The dress rehearsal: the paper's whole suite on stand-in artefacts in the real file formats.

Every rule of `all` runs: downloads over HTTP, conversion, references, baselines, training of every
cell at 100-step tables, sampling at the paper's step counts, every table and figure.
"""

import csv
import functools
import http.server
import importlib.util
import json
import threading
from pathlib import Path

import pytest

from hqdm_bench.catalogue import Layout, load_catalogue
from hqdm_bench.common.tensors import read_metadata

ROOT = Path(__file__).parents[2]
OPTIONS = ("--cores", "2", "--config", "device=cpu")

pytestmark = pytest.mark.slow


def rehearsal():
    spec = importlib.util.spec_from_file_location("rehearsal", ROOT / "tools" / "rehearsal.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def project(tmp_path_factory, open_project):
    """The prepared folder, its stand-ins served over HTTP, after the first run has been stopped."""
    folder = tmp_path_factory.mktemp("rehearsal") / "project"
    handler = functools.partial(Quiet, directory=folder / "stand-ins")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rehearsal().prepare(folder, f"http://127.0.0.1:{server.server_port}")
    yield open_project(folder)
    server.shutdown()


@pytest.fixture(scope="module")
def stopped(project):
    """What the default policy makes of a full-precision model of random weights."""
    return project.snakemake("all", *OPTIONS)


@pytest.fixture(scope="module")
def finished(project, stopped):
    run = project.snakemake("all", *OPTIONS, "acceptance=report")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return project


def test_no_student_is_trained_of_an_unaccepted_model(project, stopped):
    assert stopped.returncode != 0
    log = (project.folder / "logs/paper/bedrooms/acceptance.log").read_text()
    assert "model 'bedrooms' does not score as others report at full precision" in log
    assert "under bedrooms-200 (expected 2.9 to 3.2)" in log
    assert not list((project.folder / "results").rglob("student.safetensors"))
    assert not list((project.folder / "results").rglob("acceptance.json"))


def test_every_table_and_figure_is_made(finished):
    suite = load_catalogue(finished.folder).suite("paper")
    layout = Layout(finished.folder)
    for number in suite.tables:
        for suffix in ("csv", "md", "tex"):
            assert layout.table("paper", number, suffix).stat().st_size > 500
        text = layout.table("paper", number, "md").read_text()
        assert "FULL-PRECISION BASELINE OUT OF RANGE" in text
    for name in suite.figures:
        assert layout.figure("paper", name, "pdf").read_bytes().startswith(b"%PDF")
        assert layout.figure("paper", name, "png").stat().st_size > 10_000


def test_every_cell_of_the_papers_tables_has_numbers(finished):
    """All cells, both presets; columns headed plainly, as the extractor is Inception's."""
    catalogue = load_catalogue(finished.folder)
    suite = catalogue.suite("paper")
    layout = Layout(finished.folder)
    for cell in suite.cells:
        metrics = json.loads(layout.metrics(cell).read_text())
        assert metrics["extractor"]["name"] == "inception"
        assert metrics["images"] == 32
        if cell.method != "fp":
            training = json.loads(layout.training(cell).read_text())
            assert training["recipe"]["steps"] == 100
            # Post-training methods, whose entries say what they fit, are not distilled.
            updates = 100 if catalogue.method(cell.method).work is None else 0
            with layout.history(cell).open() as file:
                assert len(list(csv.DictReader(file))) == updates
    with layout.table("paper", 1, "csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows


def test_artefacts_without_a_published_digest_are_in_the_lock(finished):
    lock = json.loads(Layout(finished.folder).artefact_lock.read_text())
    catalogue = load_catalogue(finished.folder)
    unpublished = {name for name, entry in catalogue.artefacts.items() if entry.sha256 is None}
    assert set(lock) == unpublished
    assert all(entry["url"].startswith("http://127.0.0.1") for entry in lock.values())


def test_teachers_say_which_weights_they_hold(finished):
    layout = Layout(finished.folder)
    averaged = {
        model: read_metadata(layout.teacher("paper", model))["ema"]
        for model in ("imagenet", "bedrooms", "churches")
    }
    assert averaged == {"imagenet": False, "bedrooms": True, "churches": True}


def test_a_second_run_does_nothing(finished):
    run = finished.snakemake("all", *OPTIONS, "acceptance=report")
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout + run.stderr


def test_the_search_compares_every_candidate(finished):
    run = finished.snakemake("search", *OPTIONS)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    with Layout(finished.folder).baselines("search", "csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert all(float(row["distance_to_paper"]) > 0 for row in rows)
    raw = {row["model"]: row["fid"] for row in rows if row["protocol"] == "bedrooms"}
    assert raw["bedrooms"] != raw["bedrooms-raw"]
