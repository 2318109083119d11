"""The quantizers as plain formulas under autograd: what the fused ones must compute.

Gradients (EfficientDM and HQ-DM as released): rounding is straight through; clipping passes the
gradient inside and exactly on the limits, judged on the rounded value; nothing rescales the
gradients of step sizes.
"""

import torch
from torch import Tensor

__all__ = ["clip", "plain_fake_quantize", "plain_lora_fake_quantize", "round_straight_through"]


def round_straight_through(x: Tensor) -> Tensor:
    """Round to nearest, halves to even; gradient one."""
    return x + (x.round() - x).detach()


def clip(x: Tensor, low: float, high: float | Tensor) -> Tensor:
    """Clip; gradient one inside and on the limits, zero outside.

    Spelled out because releases of PyTorch differ in the gradient of clamp exactly on a limit.
    """
    inside = (x >= low) & (x <= high)
    return torch.where(inside, x, x.detach().clamp(min=low).clamp(max=high))


def plain_fake_quantize(
    x: Tensor, scale: Tensor, zero: Tensor | None, low: float, high: float
) -> Tensor:
    """x_hat = (clip(round(x / s) + z, low, high) - z) * s, with z = 0 if ``zero`` is None."""
    codes = round_straight_through(x / scale)
    if zero is None:
        return clip(codes, low, high) * scale
    return (clip(codes + zero, low, high) - zero) * scale


def plain_lora_fake_quantize(
    lora_A: Tensor,
    lora_B: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor,
    base_scale: Tensor | None,
    levels: int,
) -> Tensor:
    """W_hat = (clip(round((W_b + B A) / delta) + z, 0, levels) - z) * delta.

    The base weight W_b is (codes - z) * base_scale, or ``base`` itself if ``base_scale`` is None.
    Shapes as in `lora_fake_quantize`.
    """
    update = (lora_B.flatten(1) @ lora_A.flatten(1)).view(base.shape)
    start = base if base_scale is None else (base.to(scale.dtype) - zero) * base_scale
    return plain_fake_quantize(start + update, scale, zero, 0.0, float(levels))
