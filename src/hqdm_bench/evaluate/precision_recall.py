"""Precision and recall by k-nearest-neighbour balls, in blocks.

Products of matrices give all squared distances |u|^2 - 2uv + |v|^2 quickly, but with a rounding
error that depends on where in a block a pair falls, so equal distances would compare unequal. They
are therefore used to find the pairs that matter, and those few are measured again as the sum of
(u - v)^2, which is the same number wherever the pair falls. Duplicated images and ties come out as
in exact arithmetic.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["PrecisionRecall", "covered", "precision_recall", "squared_radii"]

BLOCK = 2048  # rows of a block of distances: 32 MiB in float64
PAIRS = 4096  # pairs measured directly at a time


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    recall: float


def precision_recall(
    generated: Tensor, real: Tensor, k: int = 3, block: int = BLOCK
) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, Eq. 1-3).

    Args:
        generated: (n, d) features of generated images.
        real: (m, d) features of real images.
        k: a point's ball reaches to its k-th nearest neighbour, itself not counted.
        block: rows of a block of distances; does not change the result.

    Returns:
        Share of generated images inside a ball of a real one, and share of real images inside a
        ball of a generated one; the border belongs to the ball.

    Raises:
        BenchError: k is not in 1..n-1 for either set, or the dimensions differ.
    """
    if generated.shape[1:] != real.shape[1:]:
        raise BenchError(
            f"features of shapes {tuple(generated.shape)} and {tuple(real.shape)} cannot be "
            "compared; extract both with the same extractor"
        )
    for name, points in (("generated", generated), ("real", real)):
        if not 0 < k < len(points):
            raise BenchError(
                f"precision and recall with k = {k} need at least {max(k, 1) + 1} {name} images "
                f"and k >= 1; there are {len(points)}"
            )
    in_real = covered(generated, real, squared_radii(real, k, block), block)
    in_generated = covered(real, generated, squared_radii(generated, k, block), block)
    return PrecisionRecall(_share(in_real), _share(in_generated))


def _share(inside: Tensor) -> float:
    return float(inside.double().mean())


def squared_radii(points: Tensor, k: int, block: int = BLOCK) -> Tensor:
    """(n,) float64 squared distance of each point to its k-th nearest neighbour in the set.

    A duplicate is a neighbour at distance 0; the point itself is not a neighbour.
    """
    radii = []
    for rows in points.split(block):
        candidates = _nearest(rows, points, k + 1, block)  # the point itself is one of them
        own = torch.arange(len(rows), device=points.device).repeat_interleave(k + 1)
        radii.append(_direct(rows, points, own, candidates.flatten()).view(-1, k + 1).amax(1))
    return torch.cat(radii)


def _nearest(rows: Tensor, points: Tensor, count: int, block: int) -> Tensor:
    """(rows, count) indices of each row's nearest points, up to the rounding of products."""
    distances, indices = [], []
    for start, squared in _blocks(rows, points, block):
        best = squared.topk(min(count, squared.shape[1]), dim=1, largest=False)
        distances.append(best.values)
        indices.append(best.indices + start)
    chosen = torch.cat(distances, 1).topk(count, dim=1, largest=False).indices
    return torch.cat(indices, 1).gather(1, chosen)


def covered(points: Tensor, centres: Tensor, radii: Tensor, block: int = BLOCK) -> Tensor:
    """(n,) bool: whether each point lies in the ball of at least one centre.

    Args:
        points: (n, d).
        centres: (m, d).
        radii: (m,) float64 squared radii.
        block: rows of a block of distances.
    """
    inside = []
    for rows in points.split(block):
        margin = _rounding_bound(rows, centres)
        hit = torch.zeros(len(rows), dtype=torch.bool, device=points.device)
        for start, squared in _blocks(rows, centres, block):
            excess = squared - radii[start : start + squared.shape[1]]
            hit |= (excess < -margin).any(1)
            close = (excess.abs() <= margin) & ~hit[:, None]
            row, column = close.nonzero(as_tuple=True)
            exact = _direct(rows, centres, row, column + start) <= radii[column + start]
            hit[row[exact]] = True
        inside.append(hit)
    return torch.cat(inside)


def _blocks(rows: Tensor, points: Tensor, block: int) -> Iterator[tuple[int, Tensor]]:
    """Squared distances of rows to consecutive blocks of points, with each block's first index."""
    left = rows.double()
    left_norms = left.square().sum(1, keepdim=True)
    for start in range(0, len(points), block):
        right = points[start : start + block].double()
        yield start, torch.addmm(left_norms + right.square().sum(1), left, right.T, alpha=-2)


def _direct(rows: Tensor, points: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Squared distances of the given pairs as sums of squared differences, float64."""
    pairs = zip(row.split(PAIRS), column.split(PAIRS), strict=True)
    parts = [(rows[i].double() - points[j].double()).square().sum(1) for i, j in pairs]
    return torch.cat(parts) if parts else rows.new_empty(0, dtype=torch.float64)


def _rounding_bound(rows: Tensor, points: Tensor) -> float:
    """Bound on the float64 error of |u|^2 - 2uv + |v|^2, from the number and size of its terms."""
    # Norms need no copy of the points, which squares of all of them would be.
    largest = max(float(torch.linalg.vector_norm(part, dim=1).max()) for part in (rows, points))
    return 8 * (rows.shape[1] + 4) * torch.finfo(torch.float64).eps * largest**2
