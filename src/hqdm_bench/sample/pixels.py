"""From model range to bytes."""

from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["to_uint8"]


def to_uint8(images: Tensor, rounding: Literal["nearest", "floor"]) -> Tensor:
    """Map [-1, 1] to 0..255.

    Released samplers disagree: latent-diffusion and its descendants truncate 255 (x + 1) / 2,
    EfficientDM rounds it half up. The two differ by half a grey level on average, so the choice is
    part of the protocol.

    Args:
        images: (B, C, H, W); values outside [-1, 1] are clipped.
        rounding: ``nearest`` (half up) or ``floor``.

    Returns:
        (B, H, W, C) uint8, contiguous.

    Raises:
        BenchError: another rounding, or a value that is not finite (a diverged model).
    """
    if rounding not in ("nearest", "floor"):
        raise BenchError(f"rounding '{rounding}' is unknown; choose nearest or floor")
    if not torch.isfinite(images).all():
        raise BenchError("an image holds values that are not finite; the model has diverged")
    scaled = (images.clamp(-1, 1) + 1) * 127.5
    levels = torch.floor(scaled + 0.5 if rounding == "nearest" else scaled)
    return levels.permute(0, 2, 3, 1).contiguous().to(torch.uint8)
