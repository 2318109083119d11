"""A table as plain text in cells; markdown and LaTeX differ only in how they set it."""

from dataclasses import dataclass
from typing import Self

from hqdm_bench.catalogue import Bits
from hqdm_bench.report.estimates import Estimate, PairedDifference
from hqdm_bench.report.paper import PaperValue
from hqdm_bench.report.quantities import METRICS, Quantity, quantity
from hqdm_bench.report.quoted import SOURCES
from hqdm_bench.report.table_model import Row, Table, difference

__all__ = [
    "BLANK",
    "MINUS",
    "Column",
    "Strong",
    "TextTable",
    "bits_text",
    "comparison_text",
    "interval_text",
    "number",
    "signed",
    "table_text",
]

DASH = "—"
BLANK = ""
MINUS = "\N{MINUS SIGN}"


class Strong(str):
    """A cell to be set in bold."""

    __slots__ = ()


@dataclass(frozen=True)
class Column:
    """Head of a column.

    Attributes:
        head: in one line, complete.
        group: upper head that neighbours share, or empty.
        lines: the same head under its group, in narrow lines.
        numeric: set flush right.
    """

    head: str
    group: str
    lines: tuple[str, ...]
    numeric: bool

    @classmethod
    def plain(cls, head: str, numeric: bool = True) -> Self:
        """A column without a group."""
        return cls(head, "", (head,), numeric)


@dataclass(frozen=True)
class TextTable:
    """Unicode text; ``blocks`` are runs of rows that a rule sets apart."""

    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[tuple[tuple[str, ...], ...], ...]


def table_text(table: Table) -> TextTable:
    """Quoted and measured numbers side by side, one block per bit-width.

    The difference column exists only where what is measured is the paper's experiment.
    """
    ordered = any(row.order is not None for row in table.rows)
    columns = [Column.plain("Method", numeric=False), Column.plain("W/A"), Column.plain("n")]
    columns += [
        Column("Grids: weight; input", "", ("grids:", "weight; input"), numeric=False),
        Column("Quoted from", "", ("quoted", "from"), numeric=False),
    ]
    if ordered:
        columns.insert(1, Column.plain("k"))
    for key in table.metrics:
        columns += _metric_columns(table, METRICS[key])
    for key in table.diagnostics:
        kind = quantity(key)
        lines = kind.head_lines(table.extractor)
        columns.append(Column(kind.head(table.extractor), "", lines, numeric=True))
    blocks: dict[Bits, list[tuple[str, ...]]] = {}
    for row in table.rows:
        blocks.setdefault(row.bits, []).append(_cells(table, row, ordered))
    return TextTable(table.caption, tuple(columns), tuple(map(tuple, blocks.values())))


def comparison_text(table: Table) -> TextTable | None:
    """Paired differences, one block per bit-width and pair; None if no pair shares a seed."""
    if not table.comparisons:
        return None
    blocks: dict[tuple[Bits, str, str], list[tuple[str, ...]]] = {}
    for entry in table.comparisons:
        if entry.key in table.extras:
            continue
        block = blocks.setdefault((entry.bits, entry.left, entry.right), [])
        block.append(_comparison_cells(table, entry, first=not block))
    return TextTable(
        f"Table {table.number} of the paper on suite {table.suite}, {table.model.name}: paired "
        "differences over the same training seeds, noise and labels.",
        (
            Column.plain("W/A"),
            Column.plain("Pair", numeric=False),
            Column.plain("n"),
            Column.plain("Quantity", numeric=False),
            Column.plain("Difference and 95 % interval"),
            Column.plain("Verdict", numeric=False),
        ),
        tuple(map(tuple, blocks.values())),
    )


def _metric_columns(table: Table, kind: Quantity) -> list[Column]:
    """Quoted, measured, and their difference where it means something."""
    group, own = kind.paper_head, kind.head(table.extractor)
    remark = () if own == group else (_own_name(table, kind),)
    columns = [
        Column(f"{group} quoted", group, ("quoted",), numeric=True),
        Column(f"{own} measured", group, ("measured", *remark), numeric=True),
    ]
    if table.comparable:
        words = ("measured", f"{MINUS} quoted")
        columns.append(Column(f"{group} measured {MINUS} quoted", group, words, numeric=True))
    return columns


def _own_name(table: Table, kind: Quantity) -> str:
    """What sets our metric apart: its symbol, or a remark behind the paper's symbol."""
    symbol, _ = kind.head_lines(table.extractor)
    return symbol if symbol != kind.symbol else "mini features"


def _cells(table: Table, row: Row, ordered: bool) -> tuple[str, ...]:
    cells = [
        row.title + row.mark,
        bits_text(row.bits),
        str(len(row.seeds)) if row.seeds else BLANK,
        str(row.granularity or BLANK),
        SOURCES[row.source].label if row.source else BLANK,
    ]
    if ordered:
        cells.insert(1, str(row.order))
    for key in table.metrics:
        digits = METRICS[key].digits(table.extractor)
        cells += [_quoted(row.quoted.get(key)), _measured(row, key, digits)]
        if table.comparable:
            gap = difference(row, key)
            cells.append(BLANK if gap is None else signed(gap, digits))
    cells += [
        _measured(row, key, quantity(key).digits(table.extractor)) for key in table.diagnostics
    ]
    return tuple(cells)


def _comparison_cells(table: Table, entry: PairedDifference, first: bool) -> tuple[str, ...]:
    kind = quantity(entry.key)
    digits = kind.digits(table.extractor)
    value = signed(entry.difference.mean, digits) + interval_text(entry.difference, digits)
    pair = f"{entry.left_title} {MINUS} {entry.right_title}"
    lead = (bits_text(entry.bits), pair, str(entry.difference.n))
    return (
        *(lead if first else (BLANK, BLANK, BLANK)),
        kind.head(table.extractor),
        value,
        entry.verdict,
    )


def bits_text(bits: Bits) -> str:
    """As the paper's column: weights/activations."""
    return f"{bits.weight}/{bits.activation}"


def _quoted(value: PaperValue | None) -> str:
    if value is None:
        return BLANK
    return DASH if value.value is None else f"{value.value:.{value.decimals}f}"


def _measured(row: Row, key: str, digits: int) -> str:
    value = row.measured.get(key)
    if value is None:
        return BLANK
    text = number(value.mean, digits) + interval_text(value, digits)
    return Strong(text) if key in row.best else text


def interval_text(value: Estimate, digits: int) -> str:
    """A half-width over seeds; over images, where the ends lie unevenly, both of them."""
    if value.half_width is not None:
        return f" ± {value.half_width:.{digits}f}"
    if value.low is None or value.high is None:
        return ""
    return f" [{number(value.low, digits)}, {number(value.high, digits)}]"


def number(value: float, digits: int) -> str:
    """Fixed decimals with a real minus sign and no negative zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else MINUS)


def signed(value: float, digits: int) -> str:
    """The same with a plus sign before what is above zero."""
    text = number(value, digits)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"
