"""Citation, changelog and package metadata agree."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def package_version() -> str:
    """`__version__` of the package, read without importing it."""
    source = ROOT / "src" / "hqdm_bench" / "__init__.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    pytest.fail("src/hqdm_bench/__init__.py sets no __version__")


def released() -> list[tuple[str, str]]:
    """(version, date) of the changelog's sections, newest first."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)


def test_citation_names_this_version() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert CITATION["version"] == package_version()
    assert CITATION["license"] == PROJECT["license"] == "MIT"


def test_citation_prefers_the_paper() -> None:
    paper = CITATION["preferred-citation"]
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Mao", "Zou", "Xie", "Chen", "Kang"]
    assert all(author["given-names"] for author in paper["authors"])
    assert paper["title"].startswith("HQ-DM: Single Hadamard Transformation")
    assert [one["value"] for one in paper["identifiers"]] == ["arXiv:2512.05746"]
    assert {"type", "title", "authors"} <= paper.keys()


def test_changelog_has_this_version() -> None:
    versions = [version for version, _ in released()]
    assert versions[0] == package_version()
    assert len(set(versions)) == len(versions)
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_release_date_is_the_changelogs() -> None:
    assert str(CITATION["date-released"]) == dict(released())[package_version()]


def test_license_holders_agree() -> None:
    (author,) = PROJECT["authors"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n\nCopyright (c) 2026 The HQ-DM Bench authors\n")
    assert author["name"] == CITATION["authors"][0]["name"] == "The HQ-DM Bench authors"


def test_package_is_typed() -> None:
    assert (ROOT / "src" / "hqdm_bench" / "py.typed").is_file()
