"""Input codes, from the same products and roundings as the fake-quantized layer's.

A fake-quantized layer computes clip(round((x R) / s), low, high), x R as a float32 product of the
input with the Hadamard blocks, / as a true division, round to the nearest even number. Exactly
these operations run here on exactly these operands, so the codes are equal bit for bit, ties
included. Another transform than the layer's or a multiplication by 1/s would round elsewhere. With
the layer's transform ``butterfly`` the codes are the same on every device.

An input that is laid out channels-last, or whose channels are its last axis, goes through all of it
in pieces that stay in the cache, and leaves as one byte an element.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.hadamard.matrix import rotation_matrix
from hqdm_bench.integer.blocks import Routine, block_routine, multiply_blocks

__all__ = ["CodeGrid", "encode", "signed_codes"]

PIECE = 2**18  # floats of the working buffer: half a MiB, within the second-level cache


@dataclass(frozen=True)
class CodeGrid:
    """The integer grid of an input at one step.

    Attributes:
        scale: s.
        low: lowest value of round(x/s), that is the lowest code minus the zero-point.
        high: highest.
        zero: what is added to make a byte of it: the byte that stands for zero, of a signed byte
            usually 0.
    """

    scale: float
    low: int
    high: int
    zero: int

    @property
    def largest(self) -> int:
        """The largest magnitude that is multiplied: of a value or of the byte that holds it."""
        return max(abs(self.low), abs(self.high), self.high - self.low)

    @property
    def shift(self) -> int:
        """What brings every value into a signed byte, which takes a sixth of the time to write."""
        return 0 if self.low >= -128 and self.high <= 127 else self.zero - 128


def signed_codes(
    x: Tensor, grid: CodeGrid, rotation: BlockRotation | None, centre: Tensor | None
) -> Tensor:
    """Codes minus the zero-point, as whole numbers in float32, shaped like x.

    Args:
        x: input of any shape.
        grid: of the step.
        rotation: R, or None.
        centre: subtracted before anything else, shaped to broadcast, or None.
    """
    if centre is not None:
        x = x - centre
    # On a GPU, division by a number is multiplication by its reciprocal; by a tensor it is not.
    scale = grid.scale if x.device.type == "cpu" else x.new_full((), grid.scale)
    turned = x / scale if rotation is None else rotation(x).div_(scale)
    return turned.round_().clamp_(grid.low, grid.high)


def encode(
    x: Tensor,
    grid: CodeGrid,
    rotation: BlockRotation | None,
    centre: Tensor | None,
    linear: bool,
) -> Tensor:
    """Codes as bytes, `signed_codes` plus ``grid.zero``.

    Args:
        x: float32, (..., C) of a linear layer, (B, C, L) or (B, C, H, W) of a convolution.
        grid: of the step; its values plus its zero lie in 0..255.
        rotation: along the channels, or None.
        centre: (C,) or None.
        linear: whether the channels are the last axis.

    Returns:
        uint8, shaped like x; images are channels-last.
    """
    image = not linear and x.dim() == 4
    rows = x.permute(0, 2, 3, 1) if image else x
    product = rotation is None or rotation.transform == "matrix"
    if product and (linear or image) and rows.is_contiguous():
        codes = _encode_rows(rows.reshape(-1, rows.shape[-1]), grid, rotation, centre)
        codes = codes.view(rows.shape)
        return codes.permute(0, 3, 1, 2) if image else codes
    if centre is not None and not linear:
        centre = centre.view(1, -1, *[1] * (x.dim() - 2))
    codes = signed_codes(x, grid, rotation, centre).add_(grid.zero).to(torch.uint8)
    return codes.contiguous(memory_format=torch.channels_last) if image else codes.contiguous()


def _encode_rows(
    rows: Tensor, grid: CodeGrid, rotation: BlockRotation | None, centre: Tensor | None
) -> Tensor:
    """Codes of (n, C) rows whose last axis is the channels, piece by piece."""
    count, channels = rows.shape
    out = rows.new_empty(count, channels, dtype=torch.int8)
    matrix = None
    routine: Routine = "pieces"
    if rotation is not None:
        matrix = rotation_matrix(rotation.order, rows.dtype, rows.device)
        routine = block_routine(rotation.order)
    pieces = 1 if routine == "whole" else max(1, math.ceil(count * channels / PIECE))
    step = math.ceil(count / pieces)  # of even size: products of few rows may sum in other orders
    buffer = rows.new_empty(step, channels)
    turned = buffer if rotation is None else torch.empty_like(buffer)
    for start in range(0, count, step):
        source = rows[start : start + step]
        work, result = buffer[: len(source)], turned[: len(source)]
        if centre is not None:
            source = torch.sub(source, centre, out=work)
        if rotation is not None and rotation.signs is not None:
            source = torch.mul(source, rotation.signs, out=work)
        if matrix is None:
            torch.div(source, grid.scale, out=result)
        else:
            size = len(matrix)
            blocks = multiply_blocks(
                source.reshape(-1, size), matrix, result.view(-1, size), routine
            )
            result = blocks.view(result.shape).div_(grid.scale)
        result.round_().clamp_(grid.low, grid.high)
        if grid.shift:
            result.add_(grid.shift)
        out[start : start + step] = result
    return out.view(torch.uint8).add_((grid.zero - grid.shift) % 256)
