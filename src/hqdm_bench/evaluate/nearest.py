"""Distance of every point to its k-th nearest neighbour, exactly; see `evaluate.neighbours`."""

import torch
from torch import Tensor

from hqdm_bench.evaluate.distance_blocks import (
    BLOCK,
    Centred,
    PairBlock,
    centred,
    direct_distances,
    pair_blocks,
)

__all__ = ["Nearest", "place_in_group", "squared_radii"]

SPARE = 4  # neighbours kept beyond the k-th, to see whether it is decided


def squared_radii(points: Tensor, k: int, block: int = BLOCK) -> Tensor:
    """(n,) float64 squared distance of each point to its k-th nearest neighbour in the set.

    A duplicate is a neighbour at distance 0; the point itself is not a neighbour.
    """
    (every,) = centred(points)
    nearest = Nearest(every, every, torch.arange(len(points), device=points.device), k)
    for part in pair_blocks(every, block=block):
        nearest.take_both(part)
    return nearest.radii(block)


class Nearest:
    """The nearest neighbours of every point so far, and from them the k-th one's exact distance.

    Args:
        left: points whose neighbours are searched.
        right: points among which they are searched.
        own: (n,) number on the right of each point on the left, which is not its own neighbour.
        k: which neighbour sets the radius.
    """

    def __init__(self, left: Centred, right: Centred, own: Tensor, k: int) -> None:
        self._left, self._right, self._own, self._k = left, right, own, k
        self._kept = min(k + SPARE, len(right) - 1)
        shape = (len(left), self._kept)
        device = left.points.device
        self._values = torch.full(shape, torch.inf, dtype=left.dtype, device=device)
        self._numbers = torch.zeros(shape, dtype=torch.long, device=device)

    def take_both(self, part: PairBlock) -> None:
        """Take a block of unordered pairs of one set into account, in both directions."""
        if part.rows == part.columns:
            self.take(part)
            return
        self._merge(part.rows, part.squared, part.columns.start, transposed=False)
        self._merge(part.columns, part.squared, part.rows.start, transposed=True)

    def take(self, part: PairBlock) -> None:
        """Take a block into account for the points of its rows."""
        own = self._own[part.rows] - part.columns.start
        among = ((own >= 0) & (own < part.squared.shape[1])).nonzero().flatten()
        squared = part.squared
        if len(among):
            squared = squared.clone()
            squared[among, own[among]] = torch.inf
        self._merge(part.rows, squared, part.columns.start, transposed=False)

    def _merge(self, lines: slice, squared: Tensor, first: int, transposed: bool) -> None:
        """Merge a block with what is kept for its lines: its rows, or its columns if transposed."""
        bound = self._values[lines, -1]
        if torch.isinf(bound).any():  # nothing to compare with yet
            across = 0 if transposed else 1
            best = squared.topk(min(self._kept, squared.shape[across]), dim=across, largest=False)
            values, numbers = best.values, best.indices + first
            if transposed:
                values, numbers = values.T, numbers.T
        else:
            closer = squared < (bound if transposed else bound[:, None])
            row, column = closer.nonzero(as_tuple=True)
            if not len(row):
                return
            found = squared[row, column]
            line, number = (column, row) if transposed else (row, column)
            values, numbers = _by_line(len(bound), line, found, number + first)
        values = torch.cat([self._values[lines], values], 1)
        numbers = torch.cat([self._numbers[lines], numbers], 1)
        best = values.topk(self._kept, dim=1, largest=False)
        self._values[lines] = best.values
        self._numbers[lines] = numbers.gather(1, best.indices)

    def radii(self, block: int = BLOCK) -> Tensor:
        """(n,) float64 exact squared distances to the k-th neighbours; all blocks must be in."""
        radii, open_ = self._decide()
        left = open_.nonzero().flatten()
        if not len(left):
            return radii
        points = self._right.points
        if self._left.dtype == torch.float32:
            every, some = centred(points, self._left.points[left], dtype=torch.float64)
            again = Nearest(some, every, self._own[left], self._k)
            for part in pair_blocks(some, every, block):
                again.take(part)
            radii[left] = again.radii(block)
            return radii
        for one in left.tolist():
            distances = direct_distances(
                self._left.points,
                points,
                torch.full((len(points),), one, device=points.device),
                torch.arange(len(points), device=points.device),
            )
            distances[self._own[one]] = torch.inf
            radii[one] = distances.kthvalue(self._k).values
        return radii

    def _decide(self) -> tuple[Tensor, Tensor]:
        """Exact radii, and where the kept neighbours do not suffice for one.

        Errors are within a margin, so the k-th smallest value is within a margin of the true one.
        Pairs more than two margins below it are surely nearer, those more than two above surely
        farther; the radius is among the others.
        """
        left, right = self._left, self._right
        values, place = self._values.double(), self._k - 1
        margin = left.margin(left.norms, float(right.norms.max()))[:, None]
        gap = values - values[:, place : place + 1]
        row, column = (gap.abs() <= 2 * margin).nonzero(as_tuple=True)
        exact = torch.full_like(values, torch.inf)
        exact[row, column] = direct_distances(
            left.points, right.points, row, self._numbers[row, column]
        )
        nearer = (gap < -2 * margin).sum(1, keepdim=True)
        radii = exact.sort(1).values.gather(1, place - nearer)[:, 0]
        if self._kept == len(right) - 1:
            return radii, torch.zeros_like(radii, dtype=torch.bool)
        # Nothing that was left out is nearer than this.
        beyond = values[:, -1] - margin[:, 0]
        decided = (gap[:, -1] > 2 * margin[:, 0]) | (radii * left.scale**2 <= beyond) | (radii == 0)
        return radii, ~decided


def _by_line(lines: int, line: Tensor, values: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Entries of a sparse matrix packed to the left of each line, infinite behind them."""
    order = line.argsort(stable=True)
    line, values, numbers = line[order], values[order], numbers[order]
    place = place_in_group(line, lines)
    shape = (lines, int(place.max()) + 1)
    packed = torch.full(shape, torch.inf, dtype=values.dtype, device=values.device)
    names = torch.zeros(shape, dtype=torch.long, device=values.device)
    packed[line, place], names[line, place] = values, numbers
    return packed, names


def place_in_group(group: Tensor, groups: int) -> Tensor:
    """(p,) running number of each entry within its group.

    Args:
        group: (p,) ascending numbers of groups.
        groups: how many there are.
    """
    counts = torch.bincount(group, minlength=groups)
    return torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
