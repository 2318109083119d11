"""Graded sentences as a page to read: counts, one table a verdict, then sentence by sentence."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hqdm_bench.report.claims.document import quoted, relative
from hqdm_bench.report.claims.grading import Judged
from hqdm_bench.report.claims.verdicts import (
    INCONCLUSIVE,
    NOT_IMPLIED,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    VERDICTS,
    Part,
)
from hqdm_bench.report.table_markdown import grid
from hqdm_bench.report.table_text import MINUS, Column, TextTable

__all__ = ["page", "summary"]

SHOWN_FILES = 3
SHOWN_EXCEPTIONS = 2
MEANINGS = {
    REPRODUCED: "this suite's results go the way the sentence says, beyond their 95 % interval",
    NOT_REPRODUCED: "they go the other way, beyond their interval, or most layers counted do",
    INCONCLUSIVE: "they may go either way: no interval, one that holds zero, or layers that differ",
    NOT_RUN: "the suite has not what the sentence speaks of",
    NOT_IMPLIED: "the paper's own numbers contradict the sentence, so there is nothing to "
    "reproduce; what this suite finds instead is still given",
}
DIRECTIONS = (
    "This suite runs embedded models on procedural images. Such a result can show the direction of "
    "an effect on these models and never a number of the paper: where the paper says by how much, "
    "only the sign is graded. Gains are improvements, whichever way a metric points: positive is "
    "for the sentence."
)
NUMBERS = (
    "This suite runs the paper's models, data, image counts and features, so numbers themselves "
    "are graded. An interval over the images of one training seed does not hold what another "
    "training would change."
)


def page(root: Path, suite: str, judged: tuple[Judged, ...], numbers: bool) -> str:
    """The text of ``claims.md``.

    Args:
        root: project folder, taken off file names.
        suite: its name.
        judged: every sentence.
        numbers: whether the suite is the paper's own experiment.
    """
    lines = [f"# What the paper says, graded on suite {suite}", "", summary(judged), ""]
    lines += [NUMBERS if numbers else DIRECTIONS, ""]
    lines += [f"- **{verdict}**: {MEANINGS[verdict]}" for verdict in VERDICTS]
    for verdict in VERDICTS:
        chosen = [one for one in judged if one.verdict == verdict]
        if chosen:
            remark = "" if numbers or verdict != REPRODUCED else " (direction only)"
            lines += ["", f"## {verdict[0].upper()}{verdict[1:]}{remark}", ""]
            lines += grid(_table(chosen, verdict))
    lines += ["", "## Sentence by sentence"]
    for one in judged:
        lines += ["", *_details(root, one)]
    return "\n".join(lines) + "\n"


def summary(judged: Sequence[Judged]) -> str:
    """How many sentences got which verdict."""
    verdicts = [one.verdict for one in judged]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS]
    return f"**{len(judged)} sentences: {', '.join(counts)}.**"


def _table(chosen: Sequence[Judged], verdict: str) -> TextTable:
    heads = ["Claim", "The paper says", "Place"]
    if verdict == NOT_IMPLIED:
        heads.append("Its tables")
    heads.append("Needed" if verdict == NOT_RUN else "Here")
    rows = []
    for one in chosen:
        claim = one.claim
        cells = [f"[{claim.id}](#{claim.id})", quoted(claim), claim.place]
        if verdict == NOT_IMPLIED:
            cells.append(_tables(one))
        cells.append(_here(one) if verdict != NOT_IMPLIED else f"{one.grade.verdict}: {_here(one)}")
        rows.append(tuple(cells))
    columns = tuple(Column.plain(head, numeric=False) for head in heads)
    return TextTable("", columns, (tuple(rows),))


def _tables(one: Judged) -> str:
    """What contradicts the sentence, shortened."""
    found = one.finding.exceptions
    shown = [f"not of {text}" for text in found[:SHOWN_EXCEPTIONS]]
    if len(found) > len(shown):
        shown.append(f"nor of {len(found) - len(shown)} more")
    return "; ".join((one.finding.text.removesuffix("."), *shown)) + "."


def _here(one: Judged) -> str:
    grade = one.grade
    if grade.effect is None or len(grade.parts) > 1:
        return grade.result
    effect = _effect(grade.effect, grade.unit, grade.interval)
    if grade.kind:
        effect += f" ({grade.kind.removeprefix('95 % ')})"
    return f"{effect}. {grade.result}" if grade.result else effect


def _effect(effect: float, unit: str, interval: tuple[float, float] | None) -> str:
    ends = f" [{_number(interval[0])}, {_number(interval[1])}]" if interval else ""
    return f"{_number(effect)}{ends} {unit}"


def _number(value: float) -> str:
    """Three digits that count, without powers of ten."""
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    if "e" in text:
        text = f"{value:.5f}"
    return text.replace("-", MINUS)


def _details(root: Path, one: Judged) -> Iterator[str]:
    claim, finding, grade = one.claim, one.finding, one.grade
    yield f"### {claim.id}"
    yield ""
    yield f"> {quoted(claim)} ({claim.places})"
    yield ""
    yield f"- **Verdict: {one.verdict}.**"
    if one.verdict == NOT_IMPLIED:
        yield f"- Measured here: {grade.verdict}."
    if claim.note:
        yield f"- Reading: {claim.note}"
    yield f"- The paper's tables: {finding.verdict}. {finding.text}"
    yield from (f"  - not of {text}" for text in finding.exceptions)
    here = _here(one)
    yield f"- Here: {here or grade.verdict}"
    yield f"- Rule: {one.rule}"
    yield f"- Scope: {one.scope}"
    if grade.evidence:
        yield f"- Evidence: {_files(root, grade.evidence)}"
    run = [part for part in grade.parts if part.word != NOT_RUN]
    if len(run) > 1:
        yield ""
        yield from grid(_parts(run))


def _parts(parts: Sequence[Part]) -> TextTable:
    heads = ("Comparison", "Effect", "Unit", "Interval", "Over", "Says")
    rows = tuple(
        (
            part.label,
            "" if part.effect is None else _number(part.effect),
            part.unit,
            f"{_number(part.interval[0])} to {_number(part.interval[1])}" if part.interval else "",
            part.kind.removeprefix("95 % over "),
            part.word,
        )
        for part in parts
    )
    columns = tuple(Column.plain(head, head in ("Effect", "Interval")) for head in heads)
    return TextTable("", columns, (rows,))


def _files(root: Path, paths: Sequence[Path]) -> str:
    names = [f"`{relative(root, path)}`" for path in paths[:SHOWN_FILES]]
    left = len(paths) - len(names)
    return ", ".join(names) + (f" and {left} more, listed in claims.json" if left else "")
