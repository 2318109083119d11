"""Paired differences as a grid: a row a comparison, a column a quantity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hqdm_bench.report.effects import BETTER, SAME, Effect
from hqdm_bench.report.estimates import IMAGES, PairedDifference
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.study import Group, Pair
from hqdm_bench.report.study_text import change_text, seed_counts
from hqdm_bench.report.table_model import Table
from hqdm_bench.report.table_text import bits_text, interval_text, signed

__all__ = [
    "Matrix",
    "MatrixCell",
    "MatrixRow",
    "Whisker",
    "study_matrix",
    "table_matrix",
]

WIDTH = 100.0  # of a whisker's drawing; the middle stands for no difference
MARGIN = 4.0


@dataclass(frozen=True)
class Whisker:
    """A difference in drawing units; to the right of the middle the first method is better.

    ``ends`` is None where the difference has no interval.
    """

    middle: float
    ends: tuple[float, float] | None


@dataclass(frozen=True)
class MatrixCell:
    """One quantity of one pair.

    Attributes:
        number: the difference or ratio, what the column is sorted by.
        ahead: catalogue name of the method the interval favours, None where it does not.
        of_images: whether the interval is over the images of one seed, not over training seeds.
    """

    text: str
    spread: str
    number: float
    verdict: str
    ahead: str | None
    of_images: bool
    whisker: Whisker


@dataclass(frozen=True)
class MatrixRow:
    """A pair of methods at one bit-width; a cell is None where the pair lacks the quantity."""

    bits: str
    left: str
    left_title: str
    right_title: str
    seeds: str
    remark: str
    cells: tuple[MatrixCell | None, ...]


@dataclass(frozen=True)
class Matrix:
    """Pairs of one model; ``heads`` are (symbol, arrow and unit) of the quantities."""

    model: str
    heads: tuple[tuple[str, str], ...]
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True)
class _Entry:
    """A cell before its column's scale is known.

    Attributes:
        number: the difference or ratio as shown.
        places: the same and the ends of its interval, if any, as gains of the first method.
    """

    number: float
    places: tuple[float, ...]
    text: str
    verdict: str
    ahead: str | None
    of_images: bool = False


def table_matrix(table: Table) -> Matrix | None:
    """The paired differences of a paper table in what the table shows; None if it has none."""
    shown = [entry for entry in table.comparisons if entry.key not in table.extras]
    pairs: dict[tuple[str, str, str], dict[str, PairedDifference]] = {}
    for entry in shown:
        pairs.setdefault((str(entry.bits), entry.left, entry.right), {})[entry.key] = entry
    if not pairs:
        return None
    keys = tuple(dict.fromkeys(entry.key for entry in shown))
    rows, entries = [], []
    for found in pairs.values():
        first = next(iter(found.values()))
        seeds = sorted({entry.difference.n for entry in found.values()})
        rows.append(
            MatrixRow(
                bits_text(first.bits),
                first.left,
                first.left_title,
                first.right_title,
                " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))),
                "",
                (),
            )
        )
        entries.append(
            [_of_table(found[key], table.extractor) if key in found else None for key in keys]
        )
    return _matrix(table.model.name, keys, table.extractor, rows, entries)


def study_matrix(group: Group, pairs: Sequence[Pair], extractor: str) -> Matrix:
    """The paired changes of a study's group."""
    rows, entries = [], []
    for pair in pairs:
        rows.append(
            MatrixRow(
                bits_text(group.bits),
                pair.method.method,
                pair.method.title,
                pair.against.title,
                seed_counts(pair.effects.values()),
                "; ".join(pair.changes),
                (),
            )
        )
        entries.append(
            [_of_study(pair, key, effect, extractor) for key, effect in pair.effects.items()]
        )
    return _matrix(group.model.name, group.keys, extractor, rows, entries)


def _of_table(entry: PairedDifference, extractor: str) -> _Entry:
    kind, found = quantity(entry.key), entry.difference
    digits = kind.digits(extractor)
    ends = () if found.low is None or found.high is None else (found.low, found.high)
    sign = 1 if kind.higher_is_better else -1
    ahead = {f"{entry.left_title} ahead": entry.left, f"{entry.right_title} ahead": entry.right}
    return _Entry(
        found.mean,
        tuple(sign * value for value in (found.mean, *ends)),
        signed(found.mean, digits) + interval_text(found, digits),
        entry.verdict,
        ahead.get(entry.verdict),
        found.source == IMAGES,
    )


def _of_study(pair: Pair, key: str, effect: Effect, extractor: str) -> _Entry:
    kind, found = quantity(key), effect.change
    ahead = None
    if effect.verdict != SAME:
        ahead = pair.method.method if effect.verdict == BETTER else pair.against.method
    values = (found.mean, found.low, found.high)
    gains = map(math.log, values) if kind.ratio else values
    sign = 1 if kind.higher_is_better else -1
    return _Entry(
        found.mean,
        tuple(sign * gain for gain in gains),
        change_text(effect, kind, extractor),
        effect.verdict,
        ahead,
    )


def _matrix(
    model: str,
    keys: Sequence[str],
    extractor: str,
    rows: Sequence[MatrixRow],
    entries: Sequence[Sequence[_Entry | None]],
) -> Matrix:
    """Whiskers of a column share a scale, symmetric about no difference."""
    extents = []
    for column in zip(*entries, strict=True):
        found = [abs(place) for entry in column if entry is not None for place in entry.places]
        extents.append(max(found, default=0.0))
    filled = tuple(
        replace(row, cells=tuple(map(_cell, line, extents)))
        for row, line in zip(rows, entries, strict=True)
    )
    heads = tuple(quantity(key).head_lines(extractor) for key in keys)
    return Matrix(model, heads, filled)


def _cell(entry: _Entry | None, extent: float) -> MatrixCell | None:
    if entry is None:
        return None
    scale = (WIDTH / 2 - MARGIN) / extent if extent else 0.0
    middle, *ends = (round(WIDTH / 2 + scale * place, 1) for place in entry.places)
    whisker = Whisker(middle, (min(ends), max(ends)) if ends else None)
    value, _, spread = entry.text.partition(" ")
    return MatrixCell(
        value, spread, entry.number, entry.verdict, entry.ahead, entry.of_images, whisker
    )
