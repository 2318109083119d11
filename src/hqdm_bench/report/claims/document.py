"""Graded sentences as the JSON that pages and others read."""

from collections import Counter
from pathlib import Path
from typing import Any

from hqdm_bench.report.claims.grading import Judged
from hqdm_bench.report.claims.specs import Claim
from hqdm_bench.report.claims.verdicts import VERDICTS, Part

__all__ = ["document", "quoted", "relative", "statement"]


def document(root: Path, suite: str, judged: tuple[Judged, ...]) -> dict[str, Any]:
    """Content of ``claims.json``; file names are relative to the project folder."""
    counts = Counter(one.verdict for one in judged)
    return {
        "suite": suite,
        "counts": {verdict: counts[verdict] for verdict in VERDICTS},
        "claims": [_entry(root, one) for one in judged],
    }


def _entry(root: Path, one: Judged) -> dict[str, Any]:
    claim, finding, grade = one.claim, one.finding, one.grade
    return {
        "id": claim.id,
        "statement": statement(claim),
        "place": claim.place,
        "also": list(claim.also),
        "note": claim.note,
        "kind": claim.kind,
        "cells": [
            {
                "table": cells.table,
                "bits": [str(bits) for bits in cells.bits],
                "metrics": list(cells.metrics),
            }
            for cells in claim.cells
        ],
        "paper": _paper(one),
        "arithmetic": finding.verdict,
        "arithmetic_text": finding.text,
        "exceptions": list(finding.exceptions),
        "verdict": one.verdict,
        "measured": grade.verdict,
        "effect": grade.effect,
        "unit": grade.unit,
        "interval": list(grade.interval) if grade.interval else None,
        "interval_kind": grade.kind,
        "result": grade.result,
        "rule": one.rule,
        "scope": one.scope,
        "parts": [_part(part) for part in grade.parts],
        "evidence": [relative(root, path) for path in grade.evidence],
    }


def statement(claim: Claim) -> str:
    """The quoted words with the place where they stand."""
    return f"{quoted(claim)} ({claim.place})"


def quoted(claim: Claim) -> str:
    """The quoted words, and the number meant where they hold several."""
    bare = f"“{claim.quote}”"
    several = sum(word[0].isdigit() for word in claim.quote.split()) > 1
    return f"{bare}: {claim.stated.text}" if claim.stated and several else bare


def relative(root: Path, path: Path) -> str:
    """A file name without the folder of the project."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _paper(one: Judged) -> dict[str, float]:
    """The number it states, and what its tables make of it."""
    found = {}
    if one.claim.stated is not None:
        found["stated"] = one.claim.stated.value
    if one.finding.recomputed is not None:
        found["recomputed"] = one.finding.recomputed
    return found


def _part(part: Part) -> dict[str, Any]:
    return {
        "label": part.label,
        "effect": part.effect,
        "unit": part.unit,
        "interval": list(part.interval) if part.interval else None,
        "interval_kind": part.kind,
        "word": part.word,
    }
