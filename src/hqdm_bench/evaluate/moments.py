"""Mean and covariance in float64, accumulated over batches."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["Gaussian", "Moments", "RunningMoments", "streaming_moments"]

BLOCK = 4096  # points turned to float64 at a time: 64 MiB in 2048 dimensions


@dataclass(frozen=True)
class Gaussian:
    """What a Frechet distance sees of a distribution.

    Attributes:
        mean: (d,) float64.
        covariance: (d, d) float64, symmetric.
    """

    mean: Tensor
    covariance: Tensor


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

    @property
    def gaussian(self) -> Gaussian:
        """Mean and covariance.

        Raises:
            BenchError: fewer than two points.
        """
        return Gaussian(self.mean, self.covariance)


class RunningMoments:
    """Moments of a stream of (n, d) batches.

    Batches are gathered into blocks before they are merged: a merge costs as much as the products
    of some hundred points, and the result does not depend on how the stream was cut.

    Args:
        block: points merged at a time.
    """

    def __init__(self, block: int = BLOCK) -> None:
        self._block = block
        self._waiting: list[Tensor] = []
        self._merged: Moments | None = None

    def update(self, points: Tensor) -> None:
        """Take (n, d) further points into account."""
        while len(points):
            missing = self._block - sum(map(len, self._waiting))
            self._waiting.append(points[:missing])
            points = points[missing:]
            if sum(map(len, self._waiting)) == self._block:
                self._merged, self._waiting = self.result(), []

    def result(self) -> Moments:
        """Moments of everything so far.

        Raises:
            BenchError: nothing so far.
        """
        if not self._waiting:
            if self._merged is None:
                raise BenchError("moments of an empty set of features; draw images first")
            return self._merged
        waiting = Moments.of(torch.cat(self._waiting))
        return waiting if self._merged is None else self._merged.merge(waiting)


def streaming_moments(batches: Iterable[Tensor], block: int = BLOCK) -> Moments:
    """Moments of a stream of (n, d) batches; memory is that of one block and a few d x d matrices.

    Raises:
        BenchError: the stream is empty.
    """
    moments = RunningMoments(block)
    for batch in batches:
        moments.update(batch)
    return moments.result()
