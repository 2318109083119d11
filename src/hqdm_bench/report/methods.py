"""Report `methods`: every method of a suite side by side, by rank and by cost."""

from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Layout, Suite
from hqdm_bench.report.side_by_side import ModelGroup, read_side_by_side
from hqdm_bench.report.side_by_side_csv import side_by_side_csv
from hqdm_bench.report.side_by_side_notes import (
    COST_NOTES,
    INTRO,
    cannot_show,
    images_remark,
    rank_notes,
)
from hqdm_bench.report.side_by_side_text import cost_table, marks_of, rank_table
from hqdm_bench.report.study_page import Page, Section, write_page

__all__ = ["write_methods"]


def write_methods(root: Path, suite: Suite, catalogue: Catalogue) -> None:
    """Write ``results/{suite}/tables/methods`` as csv, md and tex.

    Args:
        root: project folder with ``results``.
        suite: whose methods.
        catalogue: for titles.

    Raises:
        BenchError: the suite trains nothing, or a result is missing or damaged.
    """
    groups = read_side_by_side(root, suite, catalogue)
    page = Page(
        title=f"Methods side by side on suite {suite.name}",
        label=f"tab:{suite.name}-methods",
        intro=(INTRO,),
        sections=tuple(_section(group, suite.extractor) for group in groups),
        notes=rank_notes(groups, suite.extractor) + COST_NOTES,
        cannot=cannot_show(groups, suite.extractor),
    )
    text = side_by_side_csv(suite.name, suite.extractor, groups)
    write_page(Layout(root), suite.name, "methods", text, page)


def _section(group: ModelGroup, extractor: str) -> Section:
    return Section(
        head=group.model.name,
        remark=images_remark(group),
        tables=(rank_table(group, extractor), cost_table(group)),
        notes=tuple(f"{mark} {text}" for text, mark in marks_of(group).items()),
    )
