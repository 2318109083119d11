"""A table of the paper beside ours, as data: what the csv, md and tex writers print."""

from dataclasses import dataclass

from hqdm_bench.catalogue import Bits, ModelSpec
from hqdm_bench.report.estimates import Estimate, PairedDifference
from hqdm_bench.report.footprint import Footprint
from hqdm_bench.report.paper import PaperValue

__all__ = ["Row", "Table", "difference"]


@dataclass(frozen=True)
class Row:
    """One method at one bit-width.

    Attributes:
        method: catalogue name, or the paper's for a method that only exists there.
        title: as printed.
        order: Hadamard order k (Table 4 only).
        paper: printed numbers by metric, in the paper's unit; empty if the paper has no such row.
        ours: estimates by quantity, in the shown unit; empty if not run here.
        seeds: training seeds behind ``ours``.
        footprint: of our student; None if not run here, and for full precision.
        layers: in words, which layers are low-bit where that is not the table's rule, or empty.
        mark: footnote mark of ``layers``, or empty.
        best: quantities in which it is ahead of every other row of ours at its bits, by an interval
            that says so.
    """

    method: str
    title: str
    bits: Bits
    order: int | None
    paper: dict[str, PaperValue]
    ours: dict[str, Estimate]
    seeds: tuple[int, ...]
    footprint: Footprint | None = None
    layers: str = ""
    mark: str = ""
    best: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """One table for one model.

    Attributes:
        comparable: whether ours is the paper's experiment, so that differences mean something.
        metrics: metrics of the paper's table, in its order.
        diagnostics: quantities only ours has.
        extras: quantities only our csv has.
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


def difference(ours: Estimate | None, printed: PaperValue | None) -> float | None:
    """Ours minus paper, None unless both are known."""
    if ours is None or printed is None or printed.value is None:
        return None
    return ours.mean - printed.value
