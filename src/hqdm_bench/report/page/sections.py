"""Sections of a page that hold tables: the paper's and those of the project's own studies."""

from dataclasses import dataclass, replace
from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Suite
from hqdm_bench.report.page.matrix import Matrix, study_matrix, table_matrix
from hqdm_bench.report.page.tables import PageTable, page_table
from hqdm_bench.report.page.verdict_map import VerdictMap, verdict_map
from hqdm_bench.report.results import ResultSet
from hqdm_bench.report.side_by_side import ModelGroup, read_side_by_side
from hqdm_bench.report.side_by_side_notes import (
    COST_NOTES,
    INTRO,
    cannot_show,
    images_remark,
    rank_notes,
)
from hqdm_bench.report.side_by_side_text import cost_table, marks_of, rank_table
from hqdm_bench.report.study import Group
from hqdm_bench.report.study_select import read_study
from hqdm_bench.report.study_text import (
    COST_COLUMNS,
    cost_cells,
    limits,
    protocol_remark,
    reading_notes,
    seed_counts,
)
from hqdm_bench.report.table_build import build_tables
from hqdm_bench.report.table_model import Table
from hqdm_bench.report.table_specs import HEADLINE
from hqdm_bench.report.table_text import Column, TextTable, bits_text, table_text

__all__ = ["TableSection", "methods_sections", "paper_sections", "study_sections"]


@dataclass(frozen=True)
class TableSection:
    """One table with its words.

    Attributes:
        remarks: below the head.
        values: None for a study, whose matrix says it all.
        costs: what the students cost; None without students.
        notes: how to read the table.
        matrix_notes: how to read the paired differences.
    """

    id: str
    title: str
    subtitle: str
    remarks: tuple[str, ...]
    values: PageTable | None
    matrix: Matrix | None
    costs: PageTable | None
    notes: tuple[str, ...]
    matrix_notes: tuple[str, ...]


def paper_sections(
    root: Path, results: ResultSet, catalogue: Catalogue
) -> tuple[tuple[TableSection, ...], VerdictMap | None]:
    """The paper's tables that the suite fills, and what they say of the paper's headline pair.

    Raises:
        BenchError: results made under differing protocols, or paper data that is damaged.
    """
    tables = [
        table
        for number in results.suite.tables
        for table in build_tables(number, root, results, catalogue)
    ]
    matrices = [(table, table_matrix(table)) for table in tables]
    sections = tuple(_paper(table, matrix) for table, matrix in matrices)
    headline = [matrix for table, matrix in matrices if matrix and _is_headline(table)]
    return sections, verdict_map(headline)


def study_sections(root: Path, suite: Suite, catalogue: Catalogue) -> tuple[TableSection, ...]:
    """The suite's own comparisons; empty where it has none.

    Raises:
        BenchError: a result is missing or damaged, or a pair shares fewer than two seeds.
    """
    if not suite.studies:
        return ()
    groups = read_study(root, suite, catalogue)
    return tuple(
        _study(place, group, "comparison" in suite.reports, suite.extractor)
        for place, group in enumerate(groups, start=1)
    )


def methods_sections(root: Path, suite: Suite, catalogue: Catalogue) -> tuple[TableSection, ...]:
    """The suite's methods side by side, model by model; empty where it does not ask for it.

    Raises:
        BenchError: a result is missing or damaged.
    """
    if "methods" not in suite.reports:
        return ()
    groups = read_side_by_side(root, suite, catalogue)
    return tuple(part for group in groups for part in _methods(group, suite.extractor))


def _methods(group: ModelGroup, extractor: str) -> tuple[TableSection, TableSection]:
    """Ranks, and what the students cost."""
    remark = images_remark(group)
    marks = tuple(f"{mark} {text}" for text, mark in marks_of(group).items())
    limits = (f"Cannot show: {text}" for text in cannot_show((group,), extractor))
    ranked = TableSection(
        id=f"methods-{group.model.name}",
        title="Methods side by side",
        subtitle=group.model.name,
        remarks=(INTRO, *([remark] if remark else [])),
        values=page_table(rank_table(group, extractor)),
        matrix=None,
        costs=None,
        notes=(*marks, *rank_notes((group,), extractor), *limits),
        matrix_notes=(),
    )
    costs = cost_table(group)
    return ranked, replace(
        ranked,
        id=f"method-costs-{group.model.name}",
        title="Costs of the methods",
        remarks=("What each student quantizes, and what making and keeping it takes.",),
        values=page_table(costs),
        notes=(*marks, *COST_NOTES),
    )


def _is_headline(table: Table) -> bool:
    return {(entry.left, entry.right) for entry in table.comparisons} <= set(HEADLINE)


def _paper(table: Table, matrix: Matrix | None) -> TableSection:
    return TableSection(
        id=f"table{table.number}-{table.model.name}",
        title=f"Table {table.number}",
        subtitle=table.model.name,
        remarks=(
            table.caption,
            f"Measured: {table.protocol}.",
            *([f"Share of MACs: {table.coverage}."] if table.coverage else []),
        ),
        values=page_table(table_text(table)),
        matrix=matrix,
        costs=_costs(table),
        notes=table.notes,
        matrix_notes=table.comparison_notes,
    )


def _costs(table: Table) -> PageTable | None:
    rows = tuple(
        (row.title + row.mark, bits_text(row.bits), *cost_cells(row.footprint))
        for row in table.rows
        if row.footprint is not None
    )
    if not rows:
        return None
    columns = (Column.plain("Method", numeric=False), Column.plain("W/A"), *COST_COLUMNS)
    return page_table(TextTable("Size and operations of the students.", columns, (rows,)))


def _study(place: int, group: Group, judged: bool, extractor: str) -> TableSection:
    """A group's changes, of the baseline against the others where the baseline is judged."""
    pairs = group.reversed_pairs if judged else group.pairs
    title = "Comparison" if judged else "Differences"
    effects = [effect for pair in pairs for effect in pair.effects.values()]
    columns = (Column.plain("Method", numeric=False), Column.plain("W/A"), *COST_COLUMNS)
    rows = tuple(
        (arm.title, bits_text(group.bits), *cost_cells(arm.footprint))
        for arm in (group.baseline, *group.methods)
    )
    remark = protocol_remark(group)
    return TableSection(
        id=f"study{place}-{group.model.name}-{group.bits}-{group.baseline.method}",
        title=f"{title}: {group.baseline.title}",
        subtitle=f"{group.model.name} {group.bits.label}",
        remarks=(limits((group,), seed_counts(effects)), *([remark] if remark else [])),
        values=None,
        matrix=study_matrix(group, pairs, extractor),
        costs=page_table(TextTable("Size and operations of the students.", columns, (rows,))),
        notes=(),
        matrix_notes=reading_notes((group,), extractor),
    )
