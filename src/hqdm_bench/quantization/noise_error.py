"""Moments of the error of a quantized noise prediction at one step, added up in one pass."""

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["NoiseError"]


class NoiseError:
    """Regression of D = eps_q - eps on eps, and what it leaves, from any number of batches.

    All sums are in double precision. Of an image only five numbers and its channel means are kept,
    so the predictions need not be stored, as PTQD's released scripts do.
    """

    def __init__(self) -> None:
        self._images: list[Tensor] = []  # (B, 5): means of eps and D, var(eps), cov, var(D)
        self._channels: list[Tensor] = []  # (B, 2, C): channel means of eps and D
        self._size = 0

    @torch.no_grad()
    def add(self, exact: Tensor, quantized: Tensor) -> None:
        """Take a batch.

        Args:
            exact: full-precision prediction eps, (B, C, ...).
            quantized: that of the quantized model for the same input, same shape.

        Raises:
            BenchError: shapes that differ, from each other or from those before.
        """
        size = exact[0].numel()
        if exact.shape != quantized.shape or self._size not in (0, size):
            raise BenchError(
                f"errors of noise predictions need pairs of one shape, got {tuple(exact.shape)} "
                f"and {tuple(quantized.shape)}"
            )
        self._size = size
        exact, error = exact.double(), quantized.double() - exact.double()
        x, d = exact.flatten(1), error.flatten(1)
        means = [x.mean(1), d.mean(1)]
        x, d = x - means[0][:, None], d - means[1][:, None]
        products = [(x * x).mean(1), (x * d).mean(1), (d * d).mean(1)]
        self._images.append(torch.stack([*means, *products], 1).cpu())
        by_channel = [part.flatten(2).mean(2) for part in (exact, error)]
        self._channels.append(torch.stack(by_channel, 1).cpu())

    @property
    def images(self) -> int:
        """Pairs taken."""
        return sum(map(len, self._images))

    @property
    def slope(self) -> float:
        """Slope k of the least-squares line, with an intercept, over all elements of all images."""
        moments = self._moments()
        mean_x, mean_d = moments[:, 0], moments[:, 1]
        centred = mean_x - mean_x.mean()
        variance = moments[:, 2].mean() + centred.square().mean()
        covariance = moments[:, 3].mean() + (centred * (mean_d - mean_d.mean())).mean()
        return float(covariance / variance) if variance > 0 else 0.0

    def residual_std(self, slope: float) -> float:
        """Mean over images of the (unbiased) standard deviation of D - k eps within the image.

        The mean of an image is no part of it, as in the released code.

        Args:
            slope: k.
        """
        _, _, xx, xd, dd = self._moments().unbind(1)
        variance = (dd - 2 * slope * xd + slope**2 * xx).clamp(min=0)
        return float((variance * self._size / (self._size - 1)).sqrt().mean())

    @property
    def channel_error(self) -> Tensor:
        """(C,) mean of D."""
        return self._channel_means()[1]

    @property
    def channel_exact(self) -> Tensor:
        """(C,) mean of eps."""
        return self._channel_means()[0]

    def _moments(self) -> Tensor:
        if not self._images:
            raise BenchError("no pair of noise predictions was taken")
        return torch.cat(self._images)

    def _channel_means(self) -> Tensor:
        self._moments()
        return torch.cat(self._channels).mean(0)
