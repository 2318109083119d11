"""A page of tables with its words, as markdown and as LaTeX."""

from dataclasses import dataclass

from hqdm_bench.catalogue import Layout
from hqdm_bench.common.files import write_text
from hqdm_bench.report.table_latex import PACKAGES, escape, float_table
from hqdm_bench.report.table_markdown import grid
from hqdm_bench.report.table_text import TextTable

__all__ = ["Page", "Section", "page_latex", "page_markdown", "write_page"]


@dataclass(frozen=True)
class Section:
    """Tables under one head.

    Attributes:
        remark: a line before them, or empty.
        tables: with their captions.
        notes: below them.
    """

    head: str
    remark: str
    tables: tuple[TextTable, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """One report.

    Attributes:
        label: start of the LaTeX labels.
        intro: what it is and what it can show; sentences of one paragraph.
        notes: how its numbers are read.
        summary: sentences at the end, or none.
        cannot: what its numbers cannot show, or nothing.
    """

    title: str
    label: str
    intro: tuple[str, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    summary: tuple[str, ...] = ()
    cannot: tuple[str, ...] = ()


def write_page(layout: Layout, suite: str, name: str, csv_text: str, page: Page) -> None:
    """Write a report's numbers as csv and its page as md and tex."""
    texts = {"csv": csv_text, "md": page_markdown(page), "tex": page_latex(page)}
    for suffix, text in texts.items():
        write_text(layout.report(suite, name, suffix), text)


def page_markdown(page: Page) -> str:
    """Words first, then the tables, how to read them, and the summary."""
    lines = [f"# {page.title}", "", " ".join(page.intro), ""]
    for section in page.sections:
        lines += [f"## {section.head}", ""]
        lines += [section.remark, ""] if section.remark else []
        for table in section.tables:
            lines += [f"**{table.caption}**", "", *grid(table), ""]
        lines += [*(f"- {note}" for note in section.notes), *([""] if section.notes else [])]
    lines += ["## How to read it", "", *(f"- {note}" for note in page.notes)]
    if page.cannot:
        lines += ["", "## What it cannot show", "", *(f"- {sentence}" for sentence in page.cannot)]
    if page.summary:
        lines += ["", "## Summary", "", *(f"- {sentence}" for sentence in page.summary)]
    return "\n".join(lines) + "\n"


def page_latex(page: Page) -> str:
    """The same order: a paragraph, one float a table, and lists."""
    parts = [PACKAGES, escape(" ".join(page.intro)), ""]
    for place, section in enumerate(page.sections, start=1):
        for number, table in enumerate(section.tables, start=1):
            notes = [section.remark] if section.remark and number == 1 else []
            notes += section.notes if number == len(section.tables) else ()
            parts.append(float_table(table, f"{page.label}-{place}-{number}", notes))
    parts.append(_items(page.notes))
    if page.cannot:
        parts += ["What it cannot show:", _items(page.cannot)]
    if page.summary:
        parts.append(_items(page.summary))
    return "\n".join(parts)


def _items(sentences: tuple[str, ...]) -> str:
    lines = [f"\\item {escape(sentence)}" for sentence in sentences]
    return "\n".join([r"\begin{itemize}", *lines, r"\end{itemize}", ""])
