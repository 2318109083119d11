"""Report `comparison`: one method, ours, beside each method it is compared with."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Layout, Suite
from hqdm_bench.report.effects import BETTER, SAME, WORSE
from hqdm_bench.report.footprint import assign_marks
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.study import Arm, Group, Pair
from hqdm_bench.report.study_csv import study_csv
from hqdm_bench.report.study_page import Page, Section, write_page
from hqdm_bench.report.study_select import read_study
from hqdm_bench.report.study_text import (
    COST_COLUMNS,
    change_text,
    cost_cells,
    level_text,
    limits,
    protocol_remark,
    reading_notes,
    seed_counts,
)
from hqdm_bench.report.table_text import Column, TextTable, bits_text

__all__ = ["write_comparison"]

# Verdict -> what the summary says of the method, and of the interval of its change.
VERDICT_WORDS = {
    BETTER: ("is better", "the interval excludes zero, of a ratio one"),
    SAME: ("shows no difference", "the interval holds zero, of a ratio one"),
    WORSE: ("is worse", "the interval excludes zero, of a ratio one"),
}


def write_comparison(root: Path, suite: Suite, catalogue: Catalogue) -> None:
    """Write ``results/{suite}/tables/comparison`` as csv, md and tex.

    Args:
        root: project folder with ``results``.
        suite: whose ``comparisons``; the baseline is the method that is judged, so changes are
            baseline minus method, and ratios baseline over method.
        catalogue: for titles.

    Raises:
        BenchError: a pair shares fewer than two seeds, or a result is missing or damaged.
    """
    groups = read_study(root, suite, catalogue)
    pairs = ((group, pair) for group in groups for pair in group.reversed_pairs)
    text = study_csv(suite.name, suite.extractor, pairs)
    write_page(Layout(root), suite.name, "comparison", text, _page(suite, groups))


def _page(suite: Suite, groups: tuple[Group, ...]) -> Page:
    pairs = [pair for group in groups for pair in group.reversed_pairs]
    ours = " and ".join(dict.fromkeys(pair.method.title for pair in pairs))
    effects = [effect for pair in pairs for effect in pair.effects.values()]
    by_model = itertools.groupby(groups, key=lambda group: (group.model.name, group.baseline.title))
    return Page(
        title=f"Comparison on suite {suite.name}",
        label=f"tab:{suite.name}-comparison",
        intro=(
            f"{ours} beside other methods, trained and measured alike: changes and verdicts are of "
            f"{ours} against the other method (a difference is {ours} minus it, a ratio {ours} "
            "over it), seed by seed.",
            limits(groups, seed_counts(effects)),
        ),
        sections=tuple(_section(tuple(part), suite.extractor) for _, part in by_model),
        notes=reading_notes(groups, suite.extractor),
        summary=tuple(_summary(groups, suite.extractor)),
    )


def _section(groups: tuple[Group, ...], extractor: str) -> Section:
    """One model and one judged method, block by bit-width."""
    first = groups[0]
    marks = assign_marks(p.layers for g in groups for p in g.reversed_pairs if p.layers)
    place = f"{first.model.name}, {first.baseline.title} against others"
    titles = tuple(dict.fromkeys(arm.title for group in groups for arm in group.methods))
    columns = [
        Column.plain("W/A"),
        Column.plain("Quantity", numeric=False),
        Column.plain("n"),
        Column.plain(first.baseline.title),
    ]
    for title in titles:
        columns += _columns(title)
    blocks = tuple(tuple(_rows(group, titles, extractor)) for group in groups)
    return Section(
        head=place,
        remark=protocol_remark(first),
        tables=(
            TextTable(f"{place}: means and paired changes.", tuple(columns), blocks),
            _costs(groups, marks, place),
        ),
        notes=tuple(
            f"{mark} Not the same layers are low-bit: {text}." for text, mark in marks.items()
        ),
    )


def _columns(title: str) -> list[Column]:
    return [
        Column(title, title, ("mean",), numeric=True),
        Column(f"Change against {title}", title, ("change",), numeric=True),
        Column(f"Verdict against {title}", title, ("verdict",), numeric=False),
    ]


def _rows(group: Group, titles: tuple[str, ...], extractor: str) -> Iterator[tuple[str, ...]]:
    pairs = {pair.against.title: pair for pair in group.reversed_pairs}
    for place, key in enumerate(group.keys):
        kind = quantity(key)
        cells = [
            bits_text(group.bits) if place == 0 else "",
            kind.head(extractor),
            seed_counts(pair.effects[key] for pair in pairs.values()),
            level_text(group.baseline.level(key), kind, extractor),
        ]
        for title in titles:
            cells += _pair_cells(pairs.get(title), key, extractor)
        yield tuple(cells)


def _pair_cells(pair: Pair | None, key: str, extractor: str) -> tuple[str, str, str]:
    if pair is None:
        return "", "", ""
    kind, effect = quantity(key), pair.effects[key]
    level = level_text(effect.against, kind, extractor)
    return level, change_text(effect, kind, extractor), effect.verdict


def _costs(groups: tuple[Group, ...], marks: dict[str, str], place: str) -> TextTable:
    """What every method's student costs; marks say where its layers are not ours."""
    columns = (Column.plain("W/A"), Column.plain("Method", numeric=False), *COST_COLUMNS)
    blocks = []
    for group in groups:
        notes = {pair.against.method: pair.layers for pair in group.reversed_pairs}
        arms: tuple[Arm, ...] = (group.baseline, *group.methods)
        blocks.append(
            tuple(
                (
                    bits_text(group.bits) if arm is group.baseline else "",
                    arm.title + marks.get(notes.get(arm.method, ""), ""),
                    *cost_cells(arm.footprint),
                )
                for arm in arms
            )
        )
    return TextTable(f"{place}: what the students cost.", columns, tuple(blocks))


def _summary(groups: tuple[Group, ...], extractor: str) -> Iterator[str]:
    """Where each judged method is better than another, where not, and where worse."""
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for group in groups:
        for pair in group.reversed_pairs:
            place = f"{group.model.name} {group.bits.label}"
            found.setdefault((pair.method.title, pair.against.title), []).extend(
                (effect.verdict, place, quantity(key).head_lines(extractor)[0])
                for key, effect in pair.effects.items()
            )
    for (ours, other), entries in found.items():
        for verdict, (words, why) in VERDICT_WORDS.items():
            places: dict[str, list[str]] = {}
            for _, place, name in (entry for entry in entries if entry[0] == verdict):
                places.setdefault(place, []).append(name)
            count = sum(map(len, places.values()))
            listed = "; ".join(f"{place} ({', '.join(names)})" for place, names in places.items())
            end = f": {listed}." if listed else "."
            share = f"{count} of {len(entries)} comparisons ({why})"
            yield f"Against {other}, {ours} {words} in {share}{end}"
