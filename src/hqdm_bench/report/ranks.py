"""Ranks of rows, as far as their intervals tell them apart."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hqdm_bench.report.estimates import Sample, compare
from hqdm_bench.report.quantities import quantity

__all__ = ["Rank", "ranks"]

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Rank:
    """Places a row may have among its rivals.

    Attributes:
        first: one more than the rivals that are ahead of it.
        last: the number of all rows less the rivals that it is ahead of.
    """

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


def ranks(samples: Mapping[Name, Sample], key: str) -> dict[Name, Rank]:
    """Places of rows in one quantity.

    One row is ahead of another where the interval of their paired difference excludes zero. Rows
    that are not told apart may stand on either side of each other, so each has every place from
    its first to its last. A row of places 1 to 1 is ahead of every other, as in `best.leaders`.

    Args:
        samples: of rows at one bit-width; one without values has no rank and is no rival, and a
            row without rivals has no rank either.
        key: the quantity.
    """
    held = {name: values for name, values in samples.items() if values}
    if len(held) < 2:
        return {}
    wanted = 1 if quantity(key).higher_is_better else -1
    found = {}
    for name, values in held.items():
        rivals = [compare(values, other) for rival, other in held.items() if rival != name]
        signs = [wanted * one.sign for one in rivals if one is not None]
        found[name] = Rank(1 + signs.count(-1), len(held) - signs.count(1))
    return found
