"""Which row of a bit-width is best, where the intervals can tell."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from hqdm_bench.catalogue import Bits
from hqdm_bench.report.estimates import Sample, compare
from hqdm_bench.report.quantities import quantity

__all__ = ["leaders"]

Name = TypeVar("Name", bound=Hashable)


def leaders(
    samples: Mapping[tuple[Bits, Name], Mapping[str, Sample]],
) -> dict[tuple[Bits, Name], frozenset[str]]:
    """Quantities in which a row is ahead of every other row at its bits.

    Ahead means that the interval of the paired difference excludes zero. A row without a rival
    leads nothing.

    Args:
        samples: (bits, row) to the row's samples by quantity; a row without values is no rival.
    """
    found = {}
    for (bits, name), row in samples.items():
        rivals = [
            other for (width, rival), other in samples.items() if width == bits and rival != name
        ]
        found[bits, name] = frozenset(key for key in row if _leads(key, row, rivals))
    return found


def _leads(key: str, row: Mapping[str, Sample], rivals: list[Mapping[str, Sample]]) -> bool:
    wanted = 1 if quantity(key).higher_is_better else -1
    others = [rival[key] for rival in rivals if rival[key]]
    differences = [compare(row[key], other) for other in others]
    return bool(differences) and all(
        difference is not None and difference.sign == wanted for difference in differences
    )
