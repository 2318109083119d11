"""claims.json and claims.md: complete, in agreement, and plain to read."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from hqdm_bench.report.claims import read_claims
from hqdm_bench.report.claims.document import document
from hqdm_bench.report.claims.page import page, summary
from hqdm_bench.report.claims.verdicts import VERDICTS
from hqdm_bench.report.claims.wording import rule_text

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import World

AGREED = {
    "id",
    "statement",
    "place",
    "kind",
    "paper",
    "arithmetic",
    "verdict",
    "effect",
    "unit",
    "interval",
    "rule",
    "scope",
    "evidence",
}


@pytest.fixture
def filled(world: World) -> World:
    for bits, better in (("w4a4", 0.0), ("w4a3", 3.0)):
        rows = [{"is": 8.0 + s, "fid": 9.0, "precision": 0.25 + s / 100} for s in (0.0, 0.1)]
        world.add("imagenet", "efficientdm", bits, *rows)
        rows = [{"is": 8.0 + better, "fid": 9.0 - better / 3 + s} for s in (0.0, 0.1)]
        world.add("imagenet", "hqdm", bits, *rows)
    world.add("bedrooms", "efficientdm", "w4a3", {"fid": 9.0})
    return world.add("bedrooms", "hqdm", "w4a3", {"fid": 8.0})


def test_the_json(filled: World, root: Path) -> None:
    judged = tuple(filled.judged().values())
    content = json.loads(json.dumps(document(filled.root, "made-up", judged), allow_nan=False))
    assert content["suite"] == "made-up"
    claims = {entry["id"]: entry for entry in content["claims"]}
    assert list(claims) == [claim.id for claim in read_claims(root)]
    assert all(entry.keys() >= AGREED for entry in claims.values())
    assert {entry["verdict"] for entry in claims.values()} <= set(VERDICTS)
    assert content["counts"] == {
        verdict: Counter(entry["verdict"] for entry in claims.values())[verdict]
        for verdict in VERDICTS
    }
    number = claims["is-w4a3"]
    assert number["verdict"] == "reproduced"
    assert number["paper"]["stated"] == 467.73
    assert number["paper"]["recomputed"] == pytest.approx(467.7346)
    assert number["cells"] == [{"table": 1, "bits": ["w4a3"], "metrics": ["is"]}]
    low, high = number["interval"]
    assert low < number["effect"] < high
    assert number["statement"].endswith("467.73%, respectively”: 467.73 (abstract)")
    assert len({entry["statement"] for entry in claims.values() if entry["paper"]}) == sum(
        bool(entry["paper"]) for entry in claims.values()
    )  # sentences with several numbers say which one is meant
    assert number["evidence"] == [
        f"results/made-up/some-imagenet/{method}/w4a3/seed{seed}/quick/metrics.json"
        for method in ("hqdm", "efficientdm")
        for seed in (0, 1)
    ]
    wrong = claims["bedrooms-fid-w4a3"]
    assert (wrong["verdict"], wrong["measured"], wrong["arithmetic"]) == (
        "not implied by the paper's own tables",
        "inconclusive",
        "does not follow",
    )
    assert (wrong["effect"], wrong["interval"]) == (1.0, None)


def test_the_page(filled: World) -> None:
    judged = tuple(filled.judged().values())
    text = page(filled.root, "made-up", judged, numbers=False)
    assert summary(judged) in text
    assert "## Reproduced (direction only)" in text
    assert "never a number of the paper" in text
    verdicts = [one.verdict for one in judged]
    for verdict in VERDICTS:
        heading = f"## {verdict[0].upper()}{verdict[1:]}"
        assert (heading in text) == (verdict in verdicts)
    for one in judged:
        assert text.count(f"[{one.claim.id}](#{one.claim.id})") == 1
        assert text.count(f"\n### {one.claim.id}\n") == 1
    assert "467.73%, respectively”: 467.73" in text
    assert "-0." not in text  # minus signs, not hyphens
    assert str(filled.root) not in text


def test_the_papers_own_experiment_says_so(papers_world: World) -> None:
    papers_world.add("imagenet", "efficientdm", "w4a4", {"is": 8.0}, {"is": 8.1})
    papers_world.add("imagenet", "hqdm", "w4a4", {"is": 9.0}, {"is": 9.1})
    text = page(papers_world.root, "made-up", tuple(papers_world.judged().values()), numbers=True)
    assert "(direction only)" not in text
    assert "so numbers themselves are graded" in text


def test_the_rule_of_a_ratio_names_one_and_not_zero(filled: World, root: Path) -> None:
    ratios = ("convergence", "convergence_trend", "error_growth")
    for claim in read_claims(root):
        text = rule_text(claim, filled.material, numbers=False)
        if claim.kind in ratios:
            assert "that side of one" in text
            assert "zero" not in text
        elif "interval" in text and claim.kind != "weight_outliers":
            assert "above zero" in text


def test_every_rule_is_in_words(filled: World, root: Path) -> None:
    for claim in read_claims(root):
        for numbers in (False, True):
            text = rule_text(claim, filled.material, numbers)
            assert text.endswith(".")
            assert "{" not in text
            assert "  " not in text
