"""The gallery page shows what is committed and names every figure."""

from __future__ import annotations

import re
from pathlib import Path

from hqdm_bench.catalogue import load_catalogue

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "figures.md"


def test_every_committed_image_is_shown_and_every_shown_one_is_committed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = {(PAGE.parent / link).resolve() for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)}
    assert shown == set((ROOT / "figures" / "published" / "mini").glob("*.png"))


def test_every_figure_number_has_a_line() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    heads = " ".join(line.split("|")[1] for line in lines)
    listed = {int(number) for number in re.findall(r"\d+", re.sub(r"\(#[^)]*\)", "", heads))}
    suites = load_catalogue(ROOT).suites.values()
    numbers = {int(name[3:5]) for suite in suites for name in suite.figures}
    assert numbers - set(range(5, 11)) <= listed  # figures 5 to 10 share a line
    assert {5, 10} <= listed
