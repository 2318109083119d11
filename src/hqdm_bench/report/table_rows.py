"""Rows of a table: what is printed somewhere, and what was measured here."""

from collections.abc import Sequence

from hqdm_bench.catalogue import Bits, Catalogue
from hqdm_bench.report.best import leaders
from hqdm_bench.report.estimates import Sample, estimate, itself
from hqdm_bench.report.footprint import (
    OFFICIAL,
    assign_marks,
    footprint,
    layers_text,
    policy_of,
    same_layers,
)
from hqdm_bench.report.granularity import granularity
from hqdm_bench.report.quoted import QuotedRow, quoted_title
from hqdm_bench.report.results import CellResult
from hqdm_bench.report.samples import sample
from hqdm_bench.report.table_model import Row
from hqdm_bench.report.table_specs import ORDER_METHODS

__all__ = ["mark_notes", "other_layers", "peculiarities", "row_of", "row_sample", "table_rows"]

RowKey = tuple[str, Bits]  # method and bit-width
Place = tuple[Bits, str, int | None]  # the same and the Hadamard order of Table 4


def table_rows(
    number: int,
    quoted: Sequence[QuotedRow],
    own: Sequence[CellResult],
    catalogue: Catalogue,
    keys: Sequence[str],
) -> tuple[Row, ...]:
    """Printed rows in their order, bit-width by bit-width, rows that are only ours behind them.

    Args:
        number: of the table.
        quoted: its printed rows.
        own: results that belong into it.
        catalogue: for titles.
        keys: quantities of the table.
    """
    places: list[tuple[Place, QuotedRow | None]] = [(_printed(row), row) for row in quoted]
    held = {place for place, _ in places}
    for result in own:
        place = (result.cell.bits, result.cell.method, _order(number, result))
        if place not in held:
            places.append((place, None))
            held.add(place)
    widths = list(dict.fromkeys(row.bits for row in quoted))
    widths += sorted({place[0] for place in held} - set(widths), reverse=True)
    samples = {
        (bits, method): {key: row_sample(own, method, bits, key) for key in keys}
        for bits, method, _ in held
    }
    best, layers, notes = leaders(samples), other_layers(own), peculiarities(own)
    marks, rows = assign_marks(notes.values()), []
    filled: set[Place] = set()  # a second printed row of a method holds nothing of ours
    for place, printed in sorted(places, key=lambda one: (widths.index(one[0][0]), one[0][2] or 0)):
        bits, method, order = place
        mine = () if place in filled else tuple(r for r in own if row_of(r) == (method, bits))
        filled.add(place)
        values = samples[bits, method] if mine else {}
        rows.append(
            Row(
                method=method,
                title=_title(method, printed, mine, catalogue),
                bits=bits,
                order=order,
                source=printed.source if printed else "",
                quoted=printed.values if printed else {},
                measured={
                    key: found
                    for key, value in values.items()
                    if (found := estimate(itself, value)) is not None
                },
                seeds=tuple(result.cell.seed for result in mine),
                footprint=footprint(mine),
                granularity=granularity(mine),
                layers=layers.get((method, bits), "") if mine else "",
                mark=marks.get(notes.get((method, bits), ""), "") if mine else "",
                best=best.get((bits, method), frozenset()) if mine else frozenset(),
            )
        )
    return tuple(rows)


def other_layers(own: Sequence[CellResult]) -> dict[RowKey, str]:
    """Rows whose layer choice is not the table's, with that choice in words.

    The table's is that of its first student under the official policy, or else of its first.
    """
    students = [result for result in own if result.training is not None]
    official = (result for result in students if policy_of(result) == OFFICIAL)
    usual = next(official, students[0] if students else None)
    return {
        row_of(result): layers_text(result)
        for result in students
        if usual is not None and not same_layers(result, usual)
    }


def peculiarities(own: Sequence[CellResult]) -> dict[RowKey, str]:
    """Rows that are marked, with what sets them apart: their layers, and what else is quantized."""
    layers, found = other_layers(own), {}
    for row in dict.fromkeys(map(row_of, own)):
        grids = granularity([result for result in own if row_of(result) == row])
        text = layers.get(row)
        sentences = [f"Not the layers of the rows without a mark: {text}"] if text else []
        if grids is not None and grids.remarks:
            words = "; ".join(grids.remarks)
            sentences.append(words[0].upper() + words[1:])
        if sentences:
            found[row] = ". ".join(sentences) + "."
    return found


def mark_notes(own: Sequence[CellResult]) -> tuple[str, ...]:
    """What the footnote marks stand for."""
    marks = assign_marks(peculiarities(own).values())
    return tuple(f"{mark} {text}" for text, mark in marks.items())


def row_of(result: CellResult) -> RowKey:
    """The row a result belongs to."""
    return result.cell.method, result.cell.bits


def row_sample(own: Sequence[CellResult], method: str, bits: Bits, key: str) -> Sample:
    """A quantity per training seed, in the shown unit."""
    return sample((result for result in own if row_of(result) == (method, bits)), key)


def _printed(row: QuotedRow) -> Place:
    """Table 4's orders are methods of their own here."""
    method = row.method if row.order is None else ORDER_METHODS[row.order]
    return row.bits, method, row.order


def _title(
    method: str, printed: QuotedRow | None, own: Sequence[CellResult], catalogue: Catalogue
) -> str:
    if own or printed is None:
        return catalogue.method(method).title
    return quoted_title(printed)


def _order(number: int, result: CellResult) -> int | None:
    if number != 4:
        return None
    return next(k for k, method in ORDER_METHODS.items() if method == result.cell.method)
