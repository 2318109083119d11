"""Tables of the reports with what a browser needs to sort them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from hqdm_bench.report.table_text import MINUS, Column, Strong, TextTable

__all__ = ["Head", "PageCell", "PageRow", "PageTable", "page_table", "sort_number"]

SPREAD = re.compile(r" (?=[±\[])")  # between a value and its interval
NUMBER = re.compile(r"[+\N{MULTIPLICATION SIGN}]?(-?\d+(?:\.\d+)?)(?![\d/])")


@dataclass(frozen=True)
class Head:
    """A cell of the head; ``column`` is None over a group of columns, which cannot be sorted."""

    text: str
    remark: str
    column: int | None
    numeric: bool
    columns: int = 1
    rows: int = 1


@dataclass(frozen=True)
class PageCell:
    """Text in two parts, a value and its interval, and the number it is sorted by."""

    text: str
    spread: str
    number: float | None
    numeric: bool
    strong: bool


@dataclass(frozen=True)
class PageRow:
    """Cells of a row; ``first`` where a rule sets it apart from the rows above."""

    cells: tuple[PageCell, ...]
    first: bool


@dataclass(frozen=True)
class PageTable:
    """One sortable table; ``heads`` are one or two rows."""

    caption: str
    heads: tuple[tuple[Head, ...], ...]
    rows: tuple[PageRow, ...]


def page_table(text: TextTable) -> PageTable:
    """The same table with heads that span and cells that know their number."""
    rows = tuple(
        PageRow(tuple(map(_cell, row, text.columns)), first=place == 0)
        for block in text.blocks
        for place, row in enumerate(block)
    )
    return PageTable(text.caption, _heads(text.columns), rows)


def sort_number(text: str) -> float | None:
    """The number a cell begins with, as in ``−0.40 ± 0.75`` or ``×0.91 [0.8, 1.0]``; or None."""
    match = NUMBER.match(text.replace(MINUS, "-").replace("\N{THIN SPACE}", ""))
    return float(match[1]) if match else None


def _cell(text: str, column: Column) -> PageCell:
    value, *spread = SPREAD.split(text, maxsplit=1)
    number = sort_number(text) if column.numeric else None
    return PageCell(value, "".join(spread), number, column.numeric, isinstance(text, Strong))


def _heads(columns: Sequence[Column]) -> tuple[tuple[Head, ...], ...]:
    if not any(column.group for column in columns):
        return (tuple(_head(column, place, 1) for place, column in enumerate(columns)),)
    upper, lower = [], []
    for group, members in _groups(columns):
        if not group:
            upper += [_head(column, place, 2) for place, column in members]
            continue
        upper.append(Head(group, "", None, numeric=False, columns=len(members)))
        lower += [_head(column, place, 1) for place, column in members]
    return tuple(upper), tuple(lower)


def _groups(columns: Sequence[Column]) -> Iterator[tuple[str, list[tuple[int, Column]]]]:
    for group, members in groupby(enumerate(columns), key=lambda pair: pair[1].group):
        yield group, list(members)


def _head(column: Column, place: int, rows: int) -> Head:
    text, *remarks = column.lines
    return Head(text, " ".join(remarks), place, column.numeric, rows=rows)
