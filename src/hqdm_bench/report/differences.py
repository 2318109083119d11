"""Report `differences`: methods that differ from a baseline in what their options say."""

from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Layout, Suite
from hqdm_bench.report.effects import SAME
from hqdm_bench.report.footprint import assign_marks
from hqdm_bench.report.quantities import Quantity, quantity
from hqdm_bench.report.study import Group, Pair
from hqdm_bench.report.study_csv import study_csv
from hqdm_bench.report.study_page import Page, Section, write_page
from hqdm_bench.report.study_select import read_study
from hqdm_bench.report.study_text import (
    COST_COLUMNS,
    change_text,
    cost_cells,
    limits,
    protocol_remark,
    reading_notes,
    seed_counts,
)
from hqdm_bench.report.table_text import Column, TextTable, number

__all__ = ["write_differences"]


def write_differences(root: Path, suite: Suite, catalogue: Catalogue) -> None:
    """Write ``results/{suite}/tables/differences`` as csv, md and tex.

    Args:
        root: project folder with ``results``.
        suite: whose ``comparisons``; each method is set against its comparison's baseline.
        catalogue: for titles.

    Raises:
        BenchError: a pair shares fewer than two seeds, or a result is missing or damaged.
    """
    groups = read_study(root, suite, catalogue)
    pairs = ((group, pair) for group in groups for pair in group.pairs)
    text = study_csv(suite.name, suite.extractor, pairs)
    write_page(Layout(root), suite.name, "differences", text, _page(suite, groups))


def _page(suite: Suite, groups: tuple[Group, ...]) -> Page:
    effects = [e for group in groups for pair in group.pairs for e in pair.effects.values()]
    intro = (
        "Every row is a method that differs from its baseline in the options named, trained and "
        "measured alike; its change is its result minus the baseline's, or over it for a ratio, "
        "seed by seed.",
        limits(groups, seed_counts(effects)),
    )
    return Page(
        title=f"Differences on suite {suite.name}",
        label=f"tab:{suite.name}-differences",
        intro=intro,
        sections=tuple(_section(group, suite.extractor) for group in groups),
        notes=reading_notes(groups, suite.extractor),
    )


def _section(group: Group, extractor: str) -> Section:
    marks = assign_marks(pair.layers for pair in group.pairs if pair.layers)
    place = f"{group.model.name}, {group.bits.label}, against {group.baseline.title}"
    return Section(
        head=place,
        remark=protocol_remark(group),
        tables=(_levels(group, extractor, marks, place), _changes(group, extractor, marks, place)),
        notes=tuple(
            f"{mark} Other layers than the baseline's are low-bit: {text}."
            for text, mark in marks.items()
        ),
    )


def _levels(group: Group, extractor: str, marks: dict[str, str], place: str) -> TextTable:
    """What each row is, what it costs, and its means over the seeds shared with the baseline."""
    kinds = [quantity(key) for key in group.keys]
    columns = (
        Column.plain("Method", numeric=False),
        Column.plain("What differs", numeric=False),
        Column.plain("n"),
        *COST_COLUMNS,
        *(_head(kind, extractor) for kind in kinds),
    )
    means = (number(group.baseline.level(k.key).mean, k.digits(extractor)) for k in kinds)
    first = (
        f"{group.baseline.title} (baseline)",
        "",
        str(len(group.baseline.results)),
        *cost_cells(group.baseline.footprint),
        *means,
    )
    rows = tuple(_level_cells(pair, extractor, marks) for pair in group.pairs)
    return TextTable(f"{place}: what the rows are, and their means.", columns, ((first,), rows))


def _level_cells(pair: Pair, extractor: str, marks: dict[str, str]) -> tuple[str, ...]:
    return (
        _title(pair, marks),
        "; ".join(pair.changes) or "nothing",
        seed_counts(pair.effects.values()),
        *cost_cells(pair.method.footprint),
        *(
            number(effect.method.mean, quantity(key).digits(extractor))
            for key, effect in pair.effects.items()
        ),
    )


def _changes(group: Group, extractor: str, marks: dict[str, str], place: str) -> TextTable:
    """The paired changes with their verdicts."""
    columns = [Column.plain("Method", numeric=False), Column.plain("n")]
    columns += [_head(quantity(key), extractor) for key in group.keys]
    rows = tuple(
        (
            _title(pair, marks),
            seed_counts(pair.effects.values()),
            *(
                change_text(effect, quantity(key), extractor)
                + ("" if effect.verdict == SAME else f", {effect.verdict}")
                for key, effect in pair.effects.items()
            ),
        )
        for pair in group.pairs
    )
    caption = (
        f"{place}: paired changes with 95 % intervals; where neither better nor worse is said, "
        f"{SAME}."
    )
    return TextTable(caption, tuple(columns), (rows,))


def _title(pair: Pair, marks: dict[str, str]) -> str:
    return pair.method.title + marks.get(pair.layers, "")


def _head(kind: Quantity, extractor: str) -> Column:
    return Column(kind.head(extractor), "", kind.head_lines(extractor), numeric=True)
