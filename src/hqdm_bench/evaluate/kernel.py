"""Kernel distance between two sets of features: KID on pooled Inception features."""

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.distance_blocks import BLOCK, Centred, PairBlock, centred, pair_blocks
from hqdm_bench.evaluate.feature_types import require_matrix

__all__ = ["BetweenSets", "WithinSet", "kernel_distance", "require_pairs"]

DEGREE = 3


def kernel_distance(generated: Tensor, reference: Tensor, block: int = BLOCK) -> float:
    """Squared maximum mean discrepancy under the kernel k(x, y) = (x'y / d + 1)^3.

    Binkowski et al. 2018, unbiased (U-statistic) over all pairs: the mean of k over pairs of
    different generated images, plus that over pairs of different reference images, minus twice that
    over mixed pairs. No random subsets, so no seed; may be slightly negative for equal
    distributions. Products and sums are in double precision.

    Args:
        generated: (n, d) features of generated images.
        reference: (m, d) features of real images.
        block: rows of a block of products.

    Raises:
        BenchError: no (n, d) matrices, fewer than two images on a side, the dimensions differ, a
            value is not finite, or the block has no rows.
    """
    require_pairs(generated, reference)
    double = torch.float64
    parts = []
    for points in (generated, reference):
        (every,) = centred(points, dtype=double)
        within = WithinSet(every)
        for part in pair_blocks(every, block=block):
            within.take(part)
        parts.append(float(within.means()))
    real, made = centred(reference, generated, dtype=double)
    between = BetweenSets(made, real)
    for part in pair_blocks(made, real, block):
        between.take(part)
    return parts[0] + parts[1] - 2 * float(between.means.mean())


def require_pairs(generated: Tensor, reference: Tensor) -> None:
    """Check that both sets hold pairs.

    Raises:
        BenchError: no (n, d) matrices, or fewer than two images on a side.
    """
    for name, points in (("generated", generated), ("reference", reference)):
        require_matrix(f"{name} features", points)
        if len(points) < 2:
            raise BenchError(
                f"the kernel distance needs two {name} images; there are {len(points)}"
            )


def _kernel(left: Centred, right: Centred, part: PairBlock) -> Tensor:
    """(r, c) float64 values of the kernel, from products of centred points.

    x'y = (x - c)'(y - c) + x'c + y'c - c'c: only the first term may come from single precision.
    """
    products = part.products.double() / (left.scale * right.scale)
    half = float(left.centre.double().square().sum()) / 2
    products += (left.along[part.rows] - half)[:, None]
    products += right.along[part.columns] - half
    return products.div_(left.points.shape[1]).add_(1).pow_(DEGREE)


class WithinSet:
    """Sums of the kernel over pairs of different points of one set, under several weightings.

    Args:
        points: the set.
        weights: (n, b) float64, one weighting a column; None counts each point once.
    """

    def __init__(self, points: Centred, weights: Tensor | None = None) -> None:
        self._points = points
        if weights is None:
            ones = torch.ones(len(points), 1, dtype=torch.float64)
            weights = ones.to(points.points.device)
        self._weights = weights
        self._total = weights.new_zeros(weights.shape[1])

    def take(self, part: PairBlock) -> None:
        """Take a block of unordered pairs into account."""
        kernel, on_diagonal = _kernel(self._points, self._points, part), part.rows == part.columns
        if on_diagonal:
            kernel.fill_diagonal_(0)
        weighted = self._weights[part.rows] * (kernel @ self._weights[part.columns])
        self._total += weighted.sum(0) * (1 if on_diagonal else 2)

    def means(self) -> Tensor:
        """(b,) weighted means of k(x_i, x_j) over i != j.

        A point drawn twice by a bootstrap has weight 2; the pairs of it with itself are left out,
        whose kernel no two different images have.
        """
        pairs = self._weights.sum(0).square() - self._weights.square().sum(0)
        return self._total / pairs


class BetweenSets:
    """Mean of the kernel of each point of a set with all points of another.

    Args:
        left: the set.
        right: the other.
    """

    def __init__(self, left: Centred, right: Centred) -> None:
        self._left, self._right = left, right
        self._sums = torch.zeros(len(left), dtype=torch.float64, device=left.points.device)

    def take(self, part: PairBlock) -> None:
        """Take a block of mixed pairs into account."""
        self._sums[part.rows] += _kernel(self._left, self._right, part).sum(1)

    @property
    def means(self) -> Tensor:
        """(n,) float64 mean over the other set; all blocks must be in."""
        return self._sums / len(self._right)
