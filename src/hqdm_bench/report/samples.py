"""A quantity of one row of results, seed by seed, as estimates take it."""

from collections.abc import Iterable

import numpy as np

from hqdm_bench.report.estimates import Draws
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.results import CellResult

__all__ = ["sample"]


def sample(results: Iterable[CellResult], key: str) -> dict[int, Draws]:
    """Values and bootstrap replicates of a quantity by training seed, in the shown unit.

    Args:
        results: cells that differ in their seed only.
        key: the quantity; seeds that cannot have it are left out.
    """
    scale = quantity(key).scale
    found = {}
    for result in results:
        value = result.value(key)
        if value is None:
            continue
        drawn = None if result.replicates is None else result.replicates.get(key)
        replicates = None if drawn is None else scale * np.asarray(drawn, np.float64)
        found[result.cell.seed] = Draws(scale * value, replicates)
    return found
