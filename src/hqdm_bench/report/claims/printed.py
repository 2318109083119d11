"""The paper's tables as one lookup, and what claims compute from two of their numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hqdm_bench.catalogue import Bits
from hqdm_bench.report.claims.specs import Spot
from hqdm_bench.report.paper import PaperValue, paper_rows
from hqdm_bench.report.quantities import Quantity, quantity
from hqdm_bench.report.table_specs import RELEASED_ORDER, TABLES

__all__ = ["PaperTables", "Printed", "improvement"]

FULL = Bits(32, 32)


@dataclass(frozen=True)
class Printed:
    """A number of the paper, or a row of dashes it stands in.

    Attributes:
        value: None where the paper prints a dash.
        failed: whether the whole row is dashes, read as a method that breaks down.
    """

    value: float | None
    failed: bool


@dataclass(frozen=True)
class PaperTables:
    """Every printed number by (table, method, order, bits, metric)."""

    values: Mapping[tuple[int, str, int | None, Bits, str], PaperValue]

    @classmethod
    def read(cls, root: Path) -> Self:
        """From ``paper/data``.

        Raises:
            BenchError: a table is missing or breaks its form.
        """
        return cls(
            {
                (number, row.method, row.order, row.bits, metric): value
                for number in TABLES
                for row in paper_rows(root, number)
                for metric, value in row.values.items()
            }
        )

    def at(self, spot: Spot, method: str, order: int | None = None) -> Printed | None:
        """A method's number there; None if the table has no such row or column.

        Args:
            spot: table, bit-width and metric.
            method: as in the paper's data.
            order: Hadamard order, of Table 4.
        """
        bits = FULL if method == "fp" else spot.bits
        if spot.table == 4 and order is None:
            order = RELEASED_ORDER
        found = self.values.get((spot.table, method, order, bits, spot.metric))
        return None if found is None else Printed(found.value, found.note == "failed")

    def value(self, spot: Spot, method: str, order: int | None = None) -> float | None:
        """The same as a bare number; None for a dash, too."""
        found = self.at(spot, method, order)
        return None if found is None else found.value

    def others(self, spot: Spot, method: str) -> tuple[str, ...]:
        """The other methods of a table at these bits, in its order; full precision is none."""
        found = dict.fromkeys(
            key[1] for key in self.values if (key[0], key[3]) == (spot.table, spot.bits)
        )
        return tuple(name for name in found if name not in (method, "fp"))

    def orders(self, spot: Spot) -> tuple[int, ...]:
        """The Hadamard orders of Table 4."""
        keys = [key for key in self.values if (key[0], key[3]) == (spot.table, spot.bits)]
        return tuple(dict.fromkeys(key[2] for key in keys if key[2] is not None))


def improvement(kind: Quantity | str, relative: bool) -> Callable[[Any, Any], Any]:
    """By how much a left value is better than a right one: positive is better.

    Args:
        kind: which way is better.
        relative: in percent of the right value instead of the quantity's unit.
    """
    entry = quantity(kind) if isinstance(kind, str) else kind
    sign = 1 if entry.higher_is_better else -1
    if relative:
        return lambda left, right: 100 * sign * (left / right - 1)
    return lambda left, right: sign * (left - right)
