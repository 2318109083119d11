"""What the README says is so: its numbers, its links, its commands."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PUBLISHED = ("mini", "start")


def headline(path):
    spec = importlib.util.spec_from_file_location("headline", ROOT / "tools" / "headline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.headline(path)


@pytest.mark.parametrize("suite", PUBLISHED)
def test_tables_are_those_of_the_published_runs(suite):
    assert headline(ROOT / f"results/published/{suite}/tables/table1.csv") in README


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"mini", "test", "smoke"} <= named <= targets


def test_named_configuration_exists():
    for path in re.findall(r"`((?:config|paper|profiles|src|tools)/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path
