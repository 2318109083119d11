"""Structural similarity of image pairs."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from hqdm_bench.common.errors import BenchError

__all__ = ["structural_similarity"]

WINDOW, SIGMA = 11, 1.5  # pixels
PEAK = 255.0
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """(n,) mean structural similarity of (n, H, W, C) uint8 images; 1 for equal ones.

    Wang et al. 2004, Eq. 13, with their constants and window: weights of a Gaussian of 1.5 pixels,
    11 x 11, adding up to 1. Each channel on its own, averaged over all places where the window lies
    within the image, then over channels. In double precision on the images' device.

    Raises:
        BenchError: the shapes differ, or the images are smaller than the window.
    """
    if a.shape != b.shape or a.dim() != 4:
        raise BenchError(
            f"images of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared"
        )
    if min(a.shape[1:3]) < WINDOW:
        raise BenchError(
            f"structural similarity needs images of at least {WINDOW} x {WINDOW} pixels; these are "
            f"{a.shape[1]} x {a.shape[2]}"
        )
    x, y = (images.permute(0, 3, 1, 2).double() for images in (a, b))
    mean_x, mean_y, mean_xy = _smooth(x), _smooth(y), _smooth(x * y)
    squares = mean_x.square() + mean_y.square()
    variances = _smooth(x.square() + y.square()) - squares
    products = mean_x * mean_y
    numerator = (2 * products + C1) * (2 * (mean_xy - products) + C2)
    return (numerator / ((squares + C1) * (variances + C2))).mean((1, 2, 3))


def _smooth(planes: Tensor) -> Tensor:
    """Weighted mean under the window at every place where it lies within (n, C, H, W) planes."""
    offsets = torch.arange(WINDOW, dtype=planes.dtype, device=planes.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    flat = planes.flatten(0, 1)[:, None]
    smooth = conv2d(conv2d(flat, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return smooth.view(*planes.shape[:2], *smooth.shape[2:])
