"""A table of quoted and measured numbers, as data: what the csv, md and tex writers print."""

from dataclasses import dataclass

from hqdm_bench.catalogue import Bits, ModelSpec
from hqdm_bench.report.estimates import Estimate, PairedDifference
from hqdm_bench.report.footprint import Footprint
from hqdm_bench.report.granularity import Granularity
from hqdm_bench.report.paper import PaperValue
from hqdm_bench.report.quoted import CITED, RUN

__all__ = ["Row", "Table", "difference"]


@dataclass(frozen=True)
class Row:
    """One method at one bit-width.

    Attributes:
        method: catalogue name, or the paper's for a method that only exists there.
        title: as printed.
        order: Hadamard order k (Table 4 only).
        source: where ``quoted`` is from, a key of `quoted.SOURCES`, or empty.
        quoted: printed numbers by metric, in the printed unit; empty if no paper has such a row.
        measured: estimates by quantity, in the shown unit; empty if not run here.
        seeds: training seeds behind ``measured``.
        footprint: of our student; None if not run here, and for full precision.
        granularity: of its grids; None alike.
        layers: in words, which layers are low-bit where that is not the table's rule, or empty.
        mark: footnote mark of those and of what else sets it apart, or empty.
        best: quantities in which it is ahead of every other row of ours at its bits, by an interval
            that says so.
    """

    method: str
    title: str
    bits: Bits
    order: int | None
    source: str
    quoted: dict[str, PaperValue]
    measured: dict[str, Estimate]
    seeds: tuple[int, ...]
    footprint: Footprint | None = None
    granularity: Granularity | None = None
    layers: str = ""
    mark: str = ""
    best: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """One table for one model.

    Attributes:
        comparable: whether the paper's experiment is measured, so that differences mean something.
        metrics: metrics of the paper's table, in its order.
        diagnostics: quantities that are only measured.
        extras: quantities that only the csv has.
        protocol: one line on how images were drawn and scored.
        coverage: one line on the share of arithmetic at which bits.
        notes: what the table can and cannot show.
        comparison_notes: the same for the paired differences.
    """

    number: int
    suite: str
    model: ModelSpec
    extractor: str
    comparable: bool
    caption: str
    metrics: tuple[str, ...]
    diagnostics: tuple[str, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[PairedDifference, ...]
    protocol: str
    coverage: str
    notes: tuple[str, ...]
    comparison_notes: tuple[str, ...]
    extras: tuple[str, ...] = ()


def difference(row: Row, key: str) -> float | None:
    """Measured minus quoted; None unless both are known and the quoted one is in the paper."""
    measured, printed = row.measured.get(key), row.quoted.get(key)
    if measured is None or printed is None or printed.value is None:
        return None
    return measured.mean - printed.value if row.source in (RUN, CITED) else None
