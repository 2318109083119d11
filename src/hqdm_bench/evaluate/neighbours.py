"""Precision and recall by k-nearest-neighbour balls, in blocks.

Products of matrices give all squared distances quickly, but with a rounding error that depends on
where in a block a pair falls, so equal distances would compare unequal. Blocks of products are
therefore used to find the pairs that could matter, those whose distance is within the rounding
bound of a threshold, and these few are measured again as the sum of (u - v)^2 in double precision,
which is the same number wherever the pair falls. Duplicated images and ties come out as in exact
arithmetic. Where single precision leaves too many pairs open (points much closer to each other than
to their mean), blocks in double precision come in between.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.distance_blocks import (
    BLOCK,
    Centred,
    centred,
    direct_distances,
    pair_blocks,
)
from hqdm_bench.evaluate.feature_types import require_matrix
from hqdm_bench.evaluate.nearest import place_in_group, squared_radii

__all__ = [
    "Coverage",
    "PrecisionRecall",
    "covered",
    "precision_recall",
    "require_neighbours",
    "squared_radii",
]

MANY = 16  # open pairs a point above which a block is made again in double precision


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    recall: float


def precision_recall(
    generated: Tensor, reference: Tensor, k: int = 3, block: int = BLOCK
) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al. 2019, Eq. 1-3).

    Args:
        generated: (n, d) features of generated images.
        reference: (m, d) features of real images.
        k: a point's ball reaches to its k-th nearest neighbour, itself not counted.
        block: rows of a block of distances; does not change the result.

    Returns:
        Share of generated images inside a ball of a real one, and share of real images inside a
        ball of a generated one; the border belongs to the ball.

    Raises:
        BenchError: k is not in 1..n-1 for either set, no (n, d) matrices, the dimensions differ, a
            value is not finite, or the block has no rows.
    """
    require_neighbours(generated, reference, k)
    of_reference, of_generated = (
        squared_radii(reference, k, block),
        squared_radii(generated, k, block),
    )
    real, made = centred(reference, generated)
    precision, recall = Coverage(made, real, of_reference), Coverage(real, made, of_generated)
    for part in pair_blocks(made, real, block):
        precision.take(part.rows, part.columns, part.squared)
        recall.take(part.columns, part.rows, part.squared.T)
    return PrecisionRecall(precision.share, recall.share)


def require_neighbours(generated: Tensor, reference: Tensor, k: int) -> None:
    """Check that every point has a k-th neighbour in its set.

    Raises:
        BenchError: k is not in 1..n-1 for either set, no (n, d) matrices, or the dimensions differ.
    """
    for name, points in (("generated", generated), ("reference", reference)):
        require_matrix(f"{name} features", points)
    if generated.shape[1:] != reference.shape[1:]:
        raise BenchError(
            f"features of shapes {tuple(generated.shape)} and {tuple(reference.shape)} cannot be "
            "compared; extract both with the same extractor"
        )
    for name, points in (("generated", generated), ("reference", reference)):
        if not 0 < k < len(points):
            raise BenchError(
                f"precision and recall with k = {k} need at least {max(k, 1) + 1} {name} images "
                f"and k >= 1; there are {len(points)}"
            )


class Coverage:
    """Which points lie in the ball of at least one centre, block by block.

    Args:
        points: that may be covered.
        centres: of the balls, on the scale of the points.
        radii: (m,) float64 squared radii, not scaled; the border belongs to the ball.

    Attributes:
        inside: (n,) bool.
    """

    def __init__(self, points: Centred, centres: Centred, radii: Tensor) -> None:
        self._points, self._centres, self._radii = points, centres, radii
        largest = max(float(points.norms.max()), float(centres.norms.max()))
        margin = centres.margin(centres.norms, largest)
        scaled = radii * centres.scale**2
        self._surely = (scaled - margin).to(centres.dtype)
        self._possibly = (scaled + margin).to(centres.dtype)
        self.inside = torch.zeros(len(points), dtype=torch.bool, device=radii.device)

    @property
    def share(self) -> float:
        """Share of the points that are covered."""
        return float(self.inside.double().mean())

    def take(self, rows: slice, columns: slice, squared: Tensor) -> None:
        """Take a block of squared distances of points (rows) to centres (columns) into account."""
        inside = self.inside[rows] | (squared <= self._surely[columns]).any(1)
        close = (squared <= self._possibly[columns]) & ~inside[:, None]
        row, column = close.nonzero(as_tuple=True)
        if len(row) > MANY * len(inside) and self._points.dtype == torch.float32:
            still = torch.unique_consecutive(row)
            inside[still] = self._in_double_precision(rows, columns, still)
        else:
            self._directly(rows, columns, row, column, inside)
        self.inside[rows] = inside

    def _in_double_precision(self, rows: slice, columns: slice, still: Tensor) -> Tensor:
        """Which of some points of a block lie in a ball of its centres."""
        some = self._points.points[rows][still]
        return covered(
            some, self._centres.points[columns], self._radii[columns], dtype=torch.float64
        )

    def _directly(
        self, rows: slice, columns: slice, row: Tensor, column: Tensor, inside: Tensor
    ) -> None:
        """Measure pairs until each point is in a ball or has none left; sets ``inside``.

        One pair of each point comes first, then two more, then four: a point that coincides with
        thousands of centres is found inside by the first.
        """
        tried = 1
        while len(row):
            now = place_in_group(row, len(inside)) < tried
            own, other = row[now], column[now]
            exact = direct_distances(
                self._points.points[rows], self._centres.points[columns], own, other
            )
            inside[own[exact <= self._radii[columns][other]]] = True
            left = ~now & ~inside[row]
            row, column, tried = row[left], column[left], 2 * tried


def covered(
    points: Tensor,
    centres: Tensor,
    radii: Tensor,
    block: int = BLOCK,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(n,) bool: whether each point lies in the ball of at least one centre.

    Args:
        points: (n, d).
        centres: (m, d).
        radii: (m,) float64 squared radii.
        block: rows of a block of distances; does not change the result.
        dtype: of the products; does not change the result.
    """
    balls, own = centred(centres, points, dtype=dtype)
    coverage = Coverage(own, balls, radii)
    for part in pair_blocks(own, balls, block):
        coverage.take(part.rows, part.columns, part.squared)
    return coverage.inside
