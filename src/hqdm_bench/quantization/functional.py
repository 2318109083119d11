"""Fake quantization with straight-through gradients, fused.

Values and gradients are those of the plain formulas in `reference`, with fewer passes over the
data and less kept for the backward pass.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation

__all__ = [
    "fake_quantize",
    "lora_codes",
    "lora_fake_quantize",
]


def fake_quantize(
    x: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    step: int,
    limits: tuple[float, float],
    rotation: BlockRotation | None = None,
) -> Tensor:
    """Fake-quantize with row ``step`` of the tables, inside a rotation if one is given.

    Without a rotation this is `plain_fake_quantize`; with one it is R^T Q(R x): rotate, quantize,
    rotate back.

    Args:
        x: activations of any shape.
        scales: (S,) step sizes.
        zeros: (S,) zero-points, which may be real numbers, or None for the symmetric grid.
        step: row of the tables.
        limits: lowest and highest code, for example (0, 15), or (-7, 7) for the symmetric grid.
        rotation: R, or None.

    Raises:
        BenchError: the row is NaN (not calibrated, or training diverged); checked on the CPU only,
            where reading a number does not stall the device.
    """
    needs_grad = torch.is_grad_enabled() and (
        x.requires_grad or scales.requires_grad or (zeros is not None and zeros.requires_grad)
    )
    if needs_grad:
        return _FakeQuantize.apply(x, scales, zeros, step, limits, rotation)
    scale, low, high = _row(scales, zeros, step, limits)
    if rotation is None:
        return (x / scale).round_().clamp_(low, high).mul_(scale)
    codes = rotation(x).div_(scale).round_().clamp_(low, high)
    return rotation.inverse(codes.mul_(scale))


def _row(
    scales: Tensor, zeros: Tensor | None, step: int, limits: tuple[float, float]
) -> tuple[Any, Any, Any]:
    """Step size and the limits of round(x / s), as numbers on the CPU and 0-d tensors elsewhere.

    Clipping round(x/s) to [low - z, high - z] equals clipping after adding z and saves two passes.
    """
    scale: Any = scales.detach()[step]
    zero: Any = 0.0 if zeros is None else zeros.detach()[step]
    if scales.device.type == "cpu":
        # Ternary kernels vectorise with numbers but not with broadcast 0-d tensors.
        scale, zero = float(scale), float(zero)
        if math.isnan(scale) or math.isnan(zero):
            raise BenchError(
                f"the activation quantizer is NaN at step {step}: calibrate the student before "
                "using it; if it was calibrated, training diverged, lower the learning rate"
            )
    return scale, limits[0] - zero, limits[1] - zero


class _FakeQuantize(torch.autograd.Function):
    """Keeps the input, the output and one byte an element.

    The output is kept by the layer's product anyway. With r = round(y/s), y = H x and cotangent g,
    d y_hat/ds is r - y/s inside the limits and the limit outside, hence
    s dL/ds = <g_in, x_hat - x> + <g - g_in, x_hat>, where g_in is g without its clipped entries.
    Inner products do not change under the rotation, so neither y nor the codes are needed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scales: Tensor,
        zeros: Tensor | None,
        step: int,
        limits: tuple[float, float],
        rotation: BlockRotation | None,
    ) -> Tensor:
        scale, low, high = _row(scales, zeros, step, limits)
        rounded = (x / scale if rotation is None else rotation(x).div_(scale)).round_()
        codes = rounded.clamp(low, high)
        clipped = _clip_sign(rounded, codes)
        out = codes.mul_(scale)
        if rotation is not None:
            out = rotation.inverse(out)
        ctx.save_for_backward(x, out, clipped)
        ctx.scale, ctx.step, ctx.length, ctx.rotation = scale, step, len(scales), rotation
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out, clipped = ctx.saved_tensors
        _, needs_scale, needs_zero = ctx.needs_input_grad[:3]
        grad_y = grad if ctx.rotation is None else ctx.rotation(grad)
        grad_clipped = _only_clipped(grad_y, clipped)
        grad_x = grad_y - grad_clipped
        if ctx.rotation is not None:
            grad_x = ctx.rotation.inverse(grad_x)
        grad_scales = grad_zeros = None
        if needs_zero:  # only clipped elements depend on z, each with -s
            total = grad_clipped.sum() * -ctx.scale
            grad_zeros = _one_row(total, ctx.step, ctx.length)
        if needs_scale:
            if ctx.rotation is not None:
                grad_clipped = torch.sub(grad, grad_x, out=grad_clipped)
            total = (_dot(grad_x, out - x) + _dot(grad_clipped, out)) / ctx.scale
            grad_scales = _one_row(total, ctx.step, ctx.length)
        return grad_x, grad_scales, grad_zeros, None, None, None


def _clip_sign(rounded: Tensor, codes: Tensor) -> Tensor:
    """Non-zero (int8) where clipping changed the rounded value; overwrites ``rounded``.

    A byte holding a sign rather than a bool: comparisons and products with bool tensors do not
    vectorise on the CPU and would take longer than all other passes together.
    """
    return rounded.sub_(codes).sign_().to(torch.int8)


def _only_clipped(grad: Tensor, clipped: Tensor) -> Tensor:
    """``grad`` where an element was clipped, zero elsewhere."""
    sign = clipped.to(grad.dtype)
    return sign.mul_(sign).mul_(grad)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of a * b, in one pass where both are laid out alike."""
    if a.is_contiguous() and b.is_contiguous():
        return torch.dot(a.view(-1), b.view(-1))
    return torch.sum(a * b)


def _one_row(value: Tensor, step: int, length: int) -> Tensor:
    table = torch.zeros(length, dtype=value.dtype, device=value.device)
    table[step] = value
    return table


def lora_fake_quantize(
    lora_A: Tensor,
    lora_B: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor,
    base_scale: Tensor | None,
    levels: int,
) -> Tensor:
    """Effective weight of a layer with a low-rank update; `plain_lora_fake_quantize`, fused.

    Args:
        lora_A: (rank, c_in, ...) with the kernel of the layer.
        lora_B: (c_out, rank, 1...).
        scale: (c_out, 1...) step size of the quantizer.
        zero: (c_out, 1...) zero-points, integers in floating point.
        base: (c_out, c_in, ...) uint8 codes, or the float weight if ``base_scale`` is None.
        base_scale: (c_out, 1...) step size the codes are dequantized with, or None.
        levels: highest code, 2^b - 1.

    Returns:
        (c_out, c_in, ...), every row on the grid of its channel.
    """
    if torch.is_grad_enabled():
        return _LoRAFakeQuantize.apply(lora_A, lora_B, scale, zero, base, base_scale, levels)
    codes = lora_codes(lora_A, lora_B, scale, zero, base, base_scale, levels)
    return codes.sub_(zero.flatten(1)).mul_(scale.flatten(1)).view(base.shape)


def lora_codes(
    lora_A: Tensor,
    lora_B: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor,
    base_scale: Tensor | None,
    levels: int,
) -> Tensor:
    """Integer codes in 0..levels of `lora_fake_quantize`: (c_out, K) floating point."""
    rounded, zeros = _rounded_codes(lora_A, lora_B, scale, zero, base, base_scale)
    return rounded.add_(zeros).clamp_(0, levels)


def _rounded_codes(
    lora_A: Tensor,
    lora_B: Tensor,
    scale: Tensor,
    zero: Tensor,
    base: Tensor,
    base_scale: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """round((W_b + B A) / delta) as (c_out, K), and the zero-points as (c_out, 1)."""
    scales, zeros = scale.flatten(1), zero.flatten(1)
    start = _start(base, scales, zeros, base_scale)
    # The division by delta is done on the small factor B and rides along in the product.
    return start.addmm_(lora_B.flatten(1) / scales, lora_A.flatten(1)).round_(), zeros


def _start(base: Tensor, scales: Tensor, zeros: Tensor, base_scale: Tensor | None) -> Tensor:
    """W_b / delta as a fresh (c_out, K) tensor."""
    if base_scale is None:
        return base.flatten(1) / scales
    start = base.flatten(1).to(scales.dtype).sub_(zeros)
    if base_scale.data_ptr() == scales.data_ptr():
        return start  # the two step sizes are one number, their ratio is exactly one
    return start.mul_(base_scale.flatten(1) / scales)


class _LoRAFakeQuantize(torch.autograd.Function):
    """Keeps the small factors, the base it was given, its own output and one byte an element.

    The output is kept by the layer's product anyway. With cotangent g, g_in without its clipped
    entries, delta the step size and c = W_b / delta, per output channel delta dL/ddelta = <g -
    g_in, W_hat> + <g_in, W_hat - delta c> - <g_in, B A>, and <g_in, B A> = <g_in A^T, B> = <dL/dB,
    B>, so the product B A is not needed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        lora_A: Tensor,
        lora_B: Tensor,
        scale: Tensor,
        zero: Tensor,
        base: Tensor,
        base_scale: Tensor | None,
        levels: int,
    ) -> Tensor:
        rounded, zeros = _rounded_codes(lora_A, lora_B, scale, zero, base, base_scale)
        codes = rounded.add_(zeros).clamp(0, levels)
        clipped = _clip_sign(rounded, codes)
        weight = codes.sub_(zeros).mul_(scale.flatten(1)).view(base.shape)
        ctx.save_for_backward(lora_A, lora_B, scale, zero, base, base_scale, weight, clipped)
        return weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lora_A, lora_B, scale, zero, base, base_scale, weight, clipped = ctx.saved_tensors
        factor_A, factor_B, scales = lora_A.flatten(1), lora_B.flatten(1), scale.flatten(1)
        grad = grad.reshape(clipped.shape)
        grad_clipped = _only_clipped(grad, clipped)
        grad_update = grad - grad_clipped
        grad_A = factor_B.t() @ grad_update
        grad_B = (factor_A @ grad_update.t()).t()  # this order is twice as fast for a small rank
        grad_scale = grad_base = None
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[5]:
            weight = weight.flatten(1)
            start = base.flatten(1)
            if base_scale is not None:
                start = start.to(scales.dtype).sub_(zero.flatten(1))
                grad_base = _row_dot(grad_update, start).view(scale.shape)
                start = start.mul_(base_scale.flatten(1))
            grad_scale = _row_dot(grad_clipped, weight) + _row_dot(grad_update, weight - start)
            grad_scale = ((grad_scale - _row_dot(grad_B, factor_B)) / scales).view(scale.shape)
        grads = (grad_A.view(lora_A.shape), grad_B.reshape(lora_B.shape), grad_scale)
        return *grads, None, None, grad_base, None


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    """(rows, 1) inner products of the rows of two (rows, K) tensors."""
    return (a * b).sum(1, keepdim=True)
