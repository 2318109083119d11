"""Products and distances of all pairs of two point sets, block by block, with their rounding bound.

Everything that looks at all pairs (precision, recall, the kernel distance) takes it from here, so
that one matrix product serves all. Products are made in single precision, which is several times
faster than double; whoever compares distances leaves what is within the bound to exact arithmetic.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.exact import exact_float32

__all__ = ["BLOCK", "Centred", "PairBlock", "centred", "direct_distances", "pair_blocks"]

BLOCK = 2048  # rows of a block: 16 MiB in float32
PAIRS = 4096  # pairs measured directly at a time


class PairBlock(NamedTuple):
    """One block of pairs.

    Attributes:
        rows: of the first set.
        columns: of the second set.
        products: (r, c) inner products of centred, scaled points.
        squared: (r, c) squared distances of scaled points; rounding may make them negative.
    """

    rows: slice
    columns: slice
    products: Tensor
    squared: Tensor


class Centred:
    """Points moved to a centre and scaled by a power of two, made block by block as needed.

    Distances do not change by the move and exactly by the scale; their rounding error, which grows
    with the points' norms, becomes that of the spread of the points.

    Args:
        points: (n, d), float32 or float64.
        centre: (d,) float32, so that it is the same for points of either type.
        dtype: type of the products.

    Attributes:
        scale: applied to the points; 1 until `centred` has seen every set.
        norms: (n,) float64 norms of the centred points as they enter the products, scaled.
        along: (n,) float64 inner products of the original points with the centre.
    """

    def __init__(self, points: Tensor, centre: Tensor, dtype: torch.dtype) -> None:
        self.points, self.centre, self.dtype = points, centre, dtype
        self.scale = 1.0
        norms, along = [], []
        for start in range(0, len(points), BLOCK):
            rows = slice(start, start + BLOCK)
            norms.append(self.rows(rows).double().square().sum(1).sqrt())
            along.append(points[rows].double() @ centre.double())
        self.norms, self.along = torch.cat(norms), torch.cat(along)
        if not torch.isfinite(self.norms).all():
            raise BenchError("features hold values that are not finite; extract them again")

    def __len__(self) -> int:
        return len(self.points)

    def rows(self, rows: slice) -> Tensor:
        """Centred, scaled points in the type of the products."""
        wide = torch.promote_types(self.points.dtype, self.dtype)
        return (self.points[rows].to(wide) - self.centre).to(self.dtype).mul_(self.scale)

    def rescale(self, scale: float) -> None:
        """Scale points, which were not scaled before, by a power of two."""
        self.scale, self.norms = scale, self.norms * scale

    def margin(self, norms: Tensor, largest: float) -> Tensor:
        """Bound on the error of a squared distance, in scaled units.

        With a and b the two norms and u the unit roundoff: moving to the centre rounds each
        coordinate once, 2 u (a + b)^2; a product of d terms is off by at most d u a b, whatever the
        order of summation; the sum of the three terms by a few u (a + b)^2. Distances measured
        directly, in double precision, are off by d 2^-53 (a + b)^2. Underflow costs less than the
        last term.

        Args:
            norms: of one point of each pair.
            largest: no norm of the other point is larger.
        """
        unit, terms = torch.finfo(self.dtype).eps / 2, self.points.shape[1]
        factor = 1.05 * (terms / 2 + 16) * unit + 2 * terms * 2.0**-53
        return factor * (norms + largest).square() + terms * 2.0**-120


def centred(*sets: Tensor, dtype: torch.dtype = torch.float32) -> list[Centred]:
    """Point sets around the mean of the first, on a common scale with norms up to 1.

    Args:
        sets: (n, d) points each, of one device.
        dtype: type of the products.

    Raises:
        BenchError: the dimensions differ, or a value is not finite.
    """
    sets = tuple(_single_or_double(points) for points in sets)
    first = sets[0]
    for other in sets[1:]:
        if other.shape[1:] != first.shape[1:]:
            raise BenchError(
                f"features of shapes {tuple(first.shape)} and {tuple(other.shape)} cannot be "
                "compared; extract both with the same extractor"
            )
    total = torch.zeros(first.shape[1], dtype=torch.float64, device=first.device)
    for part in first.split(BLOCK):
        total += part.double().sum(0)
    centre = (total / len(first)).float()
    made = [Centred(points, centre, dtype) for points in sets]
    largest = max(float(one.norms.max()) for one in made)
    scale = 2.0 ** -math.ceil(math.log2(largest)) if largest > 0 else 1.0
    for one in made:
        one.rescale(scale)
    return made


def _single_or_double(points: Tensor) -> Tensor:
    if points.dtype in (torch.float32, torch.float64):
        return points
    return points.float() if points.is_floating_point() else points.double()


def pair_blocks(
    left: Centred, right: Centred | None = None, block: int = BLOCK
) -> Iterator[PairBlock]:
    """Blocks of all pairs of two sets, or of the unordered pairs of one.

    Args:
        left: first set.
        right: second set; None pairs the first with itself, and a block off the diagonal then
            stands for its transpose as well.
        block: rows and columns of a block.

    Raises:
        BenchError: the block has no rows.
    """
    if block < 1:
        raise BenchError(f"a block of {block} rows holds no distances; take at least 1")
    other = left if right is None else right
    for start in range(0, len(left), block):
        rows = slice(start, min(start + block, len(left)))
        points, squares = left.rows(rows), left.norms[rows].square().to(left.dtype)
        for begin in range(start if right is None else 0, len(other), block):
            columns = slice(begin, min(begin + block, len(other)))
            with exact_float32():
                products = points @ other.rows(columns).T
            ends = other.norms[columns].square().to(left.dtype)
            squared = torch.add(ends, products, alpha=-2).add_(squares[:, None])
            yield PairBlock(rows, columns, products, squared)


def direct_distances(left: Tensor, right: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Squared distances of the given pairs as sums of squared differences, float64.

    The same number wherever a pair falls in a block and whichever of its points comes first.

    Args:
        left: (n, d).
        right: (m, d).
        row: (p,) numbers of points on the left.
        column: (p,) numbers of their partners on the right.
    """
    pairs = zip(row.split(PAIRS), column.split(PAIRS), strict=True)
    parts = [(left[i].double() - right[j].double()).square().sum(1) for i, j in pairs]
    return torch.cat(parts) if parts else left.new_empty(0, dtype=torch.float64)
