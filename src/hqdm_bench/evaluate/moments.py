"""Mean and covariance in float64, accumulated over batches."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["Moments", "streaming_moments"]


@dataclass(frozen=True)
class Moments:
    """First two moments of n points in d dimensions.

    Attributes:
        count: n.
        mean: (d,) float64.
        scatter: (d, d) float64, sum over points of (x - mean)(x - mean)'.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, points: Tensor) -> "Moments":
        """Moments of (n, d) points.

        Raises:
            BenchError: no points, or not a matrix.
        """
        if points.dim() != 2 or not len(points):
            raise BenchError(
                f"moments need a non-empty (n, d) matrix of features, not {tuple(points.shape)}"
            )
        exact = points.double()
        mean = exact.mean(0)
        centred = exact - mean
        return cls(len(points), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together (Chan, Golub and LeVeque 1983).

        Works on centred sums, so nothing cancels however far the mean is from zero.
        """
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = torch.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """(d, d) unbiased covariance (divided by n - 1).

        Raises:
            BenchError: fewer than two points.
        """
        if self.count < 2:
            raise BenchError("a covariance needs at least two images; draw more")
        return self.scatter / (self.count - 1)


def streaming_moments(batches: Iterable[Tensor]) -> Moments:
    """Moments of a stream of (n, d) batches; memory is that of one batch and a few d x d matrices.

    Raises:
        BenchError: the stream is empty.
    """
    parts = (Moments.of(batch) for batch in batches)
    first = next(parts, None)
    if first is None:
        raise BenchError("moments of an empty set of features; draw images first")
    return reduce(Moments.merge, parts, first)
