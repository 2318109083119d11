"""A quantity of one row of results, seed by seed, as estimates take it."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.streams import derive_seed
from hqdm_bench.report.estimates import Draws
from hqdm_bench.report.quantities import quantity
from hqdm_bench.report.results import CellResult

__all__ = ["REPLICATES", "noise_replicates", "sample"]

REPLICATES = 1000  # of the noise error, whose images are the held-out ones of the trajectories


def sample(results: Iterable[CellResult], key: str) -> dict[int, Draws]:
    """Values and bootstrap replicates of a quantity by training seed, in the shown unit.

    Args:
        results: cells that differ in their seed only.
        key: the quantity; seeds that cannot have it are left out.

    Raises:
        BenchError: a cell lacks the quantity, or its errors by image are damaged.
    """
    scale = quantity(key).scale
    found = {}
    for result in results:
        value = result.value(key)
        if value is None:
            continue
        drawn = _replicates(result, key)
        replicates = None if drawn is None else scale * np.asarray(drawn, np.float64)
        found[result.cell.seed] = Draws(scale * value, replicates)
    return found


def noise_replicates(
    errors: Sequence[float], energies: Sequence[float]
) -> npt.NDArray[np.float64] | None:
    """(B,) relative errors of resampled held-out images: sum of errors over sum of energies.

    Replicate b draws the same image numbers whatever the errors are, so those of two students of
    one set of trajectories are paired.

    Args:
        errors: squared error of each image, summed over its steps.
        energies: the teacher's energy of the same image.

    Returns:
        None for a single image, of which nothing can be resampled.

    Raises:
        BenchError: the two have different lengths.
    """
    if len(errors) != len(energies):
        raise BenchError(
            f"'noise_errors' holds {len(errors)} errors and {len(energies)} energies; delete the "
            "training.json and run again"
        )
    if len(errors) < 2:
        return None
    drawn = _drawn(len(errors))
    above, below = (np.asarray(values, np.float64)[drawn] for values in (errors, energies))
    return np.asarray(above.sum(axis=1) / below.sum(axis=1), np.float64)


@lru_cache(maxsize=8)
def _drawn(images: int) -> npt.NDArray[np.int64]:
    """(B, images) numbers of the images in each replicate."""
    seeds = (derive_seed("noise-error-replicate", images, place) for place in range(REPLICATES))
    rows = [np.random.default_rng(seed).integers(images, size=images) for seed in seeds]
    return np.stack(rows)


def _replicates(result: CellResult, key: str) -> npt.NDArray[np.float64] | None:
    """Of a cell; results from before errors were kept by image have none of the noise error."""
    if key != "noise_error":
        return None if result.replicates is None else result.replicates.get(key)
    found: Mapping[str, Sequence[float]] = (result.training or {}).get("noise_errors", {})
    return noise_replicates(found["errors"], found["energies"]) if found else None
