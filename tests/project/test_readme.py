"""What the README says is so: its numbers, its links, its commands."""

import importlib.util
import re
from pathlib import Path

import pytest

from hqdm_bench.catalogue import Protocol, load_catalogue
from hqdm_bench.common.files import read_json
from hqdm_bench.methods import get_method

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "results" / "published"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("headline", ROOT / "tools" / "headline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("suite", ["mini", "start"])
def test_tables_are_those_of_the_published_runs(tool, suite):
    assert tool.headline(RESULTS / suite / "tables/table1.csv") in README


def test_the_comparison_is_that_of_the_published_run(tool):
    assert tool.comparison(RESULTS / "plus/tables/comparison.csv") in README


def test_the_methods_side_by_side_are_those_of_the_published_run(tool):
    assert tool.side_by_side(RESULTS / "mini/tables/methods.csv") in README


def test_counts_of_claims_are_those_of_the_published_run():
    claims = (RESULTS / "mini/claims.md").read_text(encoding="utf-8")
    (counts,) = re.findall(r"^\*\*(\d+ sentences: .*)\*\*$", claims, re.MULTILINE)
    assert f"> {counts}" in README


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"mini", "test", "smoke"} <= named <= targets


def test_named_configuration_exists():
    for path in re.findall(r"`((?:config|paper|profiles|src|tools)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("suite", sorted(path.name for path in RESULTS.iterdir()))
def test_published_runs_are_of_the_current_catalogue(suite):
    catalogue = load_catalogue(ROOT)
    for entry in catalogue.suite(suite).models:
        for cell in entry.cells:
            own = RESULTS / suite / cell.folder(ROOT).relative_to(ROOT / "results" / suite)
            if entry.images:
                metrics = read_json(own / cell.protocol / "metrics.json")
                assert metrics["cell"] == cell.asdict()
                # A field that came later has the value that was in force before, or adds
                # to what is recorded without touching these numbers.
                current, recorded = catalogue.protocol(cell.protocol), metrics["protocol"]
                added = {"bootstrap", "trace_images"} - set(recorded)
                unchanged = {name: getattr(current, name) for name in added}
                assert Protocol(**recorded, **unchanged) == current
                if catalogue.suite(suite).engine == "auto" and cell.method != "fp":
                    assert metrics["engine"]["engine"] in ("integer", "fake")
            if cell.method != "fp":
                training = read_json(own / "training.json")
                dataset = catalogue.model(cell.model).paper_dataset
                method = catalogue.method(cell.method).on(dataset)
                assert training["method"] == method.asdict()
                recorded = {"teacher_precision": "float32", **training["recipe"]}  # came later, too
                current = catalogue.recipe(entry.recipe).asdict()
                if not is_post_training(method):  # which alone reads this part
                    recorded, current = (
                        {key: value for key, value in recipe.items() if key != "post_training"}
                        for recipe in (recorded, current)
                    )
                assert recorded == current


def is_post_training(method):
    options = get_method(method.implementation).options
    return options.read(method.options, method.name).post_training
