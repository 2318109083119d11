"""Everything that looks at all pairs of images, from one pass over the blocks of distances."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hqdm_bench.evaluate.distance_blocks import BLOCK, centred, pair_blocks
from hqdm_bench.evaluate.kernel import BetweenSets, WithinSet, require_pairs
from hqdm_bench.evaluate.nearest import Nearest
from hqdm_bench.evaluate.neighbours import Coverage, require_neighbours

__all__ = ["Overlap", "block_count", "measure_overlap"]


class Overlap(NamedTuple):
    """How two sets of features lie to each other.

    Attributes:
        in_reference: (n,) bool, generated images inside a ball of a real one: precision.
        in_generated: (m,) bool, real images inside a ball of a generated one: recall.
        kernel: (b,) float64 kernel distance under each weighting of the generated images; None if
            it was not asked for.
    """

    in_reference: Tensor
    in_generated: Tensor
    kernel: Tensor | None


def measure_overlap(
    generated: Tensor,
    reference: Tensor,
    k: int = 3,
    kernel: bool = True,
    weights: Tensor | None = None,
    block: int = BLOCK,
    progress: Callable[[], None] = lambda: None,
) -> Overlap:
    """Precision, recall and kernel distance of two sets in one pass.

    Precision and recall are exactly those of `precision_recall`. The kernel distance is that of
    `kernel_distance` up to the rounding of its products, which are those of the neighbours, in
    single precision around the mean: 1e-9 of the kernel's size.

    Args:
        generated: (n, d) features of generated images.
        reference: (m, d) features of real images.
        k: a point's ball reaches to its k-th nearest neighbour, itself not counted.
        kernel: whether to measure the kernel distance.
        weights: (n, b) float64 weightings of the generated images for it; None counts each once.
        block: rows of a block.
        progress: called after each of `block_count` blocks.

    Raises:
        BenchError: see `precision_recall`.
    """
    require_neighbours(generated, reference, k)
    require_pairs(generated, reference)
    if weights is None:
        weights = torch.ones(len(generated), 1, dtype=torch.float64, device=generated.device)
    of_generated, within = _within(generated, k, kernel, weights, block, progress)
    of_reference, within_reference = _within(reference, k, kernel, None, block, progress)
    real, made = centred(reference, generated)
    precision, recall = Coverage(made, real, of_reference), Coverage(real, made, of_generated)
    between = BetweenSets(made, real)
    for part in pair_blocks(made, real, block):
        precision.take(part.rows, part.columns, part.squared)
        recall.take(part.columns, part.rows, part.squared.T)
        if kernel:
            between.take(part)
        progress()
    distance = None
    if within is not None and within_reference is not None:
        mixed = between.means @ weights / weights.sum(0)
        distance = within + within_reference - 2 * mixed
    return Overlap(precision.inside, recall.inside, distance)


def block_count(generated: int, reference: int, block: int = BLOCK) -> int:
    """Blocks that `measure_overlap` goes through for sets of these sizes."""
    n, m = -(-generated // block), -(-reference // block)
    return n * (n + 1) // 2 + m * (m + 1) // 2 + n * m


def _within(
    points: Tensor,
    k: int,
    kernel: bool,
    weights: Tensor | None,
    block: int,
    progress: Callable[[], None],
) -> tuple[Tensor, Tensor | None]:
    """Squared radii of a set, and the means of the kernel within it."""
    (every,) = centred(points)
    nearest = Nearest(every, every, torch.arange(len(points), device=points.device), k)
    sums = WithinSet(every, weights) if kernel else None
    for part in pair_blocks(every, block=block):
        nearest.take_both(part)
        if sums is not None:
            sums.take(part)
        progress()
    return nearest.radii(block), None if sums is None else sums.means()
