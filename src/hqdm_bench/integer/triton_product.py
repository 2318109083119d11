"""Triton's kernels for products of int8 codes with int8 weights: convolutions and matrices.

Imported only where it runs; importing it imports Triton.

A convolution is a matrix product whose left operand is never written down: row m is an output
pixel, column k an entry of its window, and the addresses of a tile are computed where it is loaded.
Both operands are int8, since tensor cores have no mixed signs, and both have the channels next to
each other in memory, as 8-bit operands on Hopper must. Sums are int32. What a code's zero
contributes is taken off in integers: the padding is loaded as that zero, so every pixel loses the
same zero * sum of weights, at the border too. A matrix product is a convolution with one tap.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.triton_launch import on_device, processors

__all__ = ["Epilogue", "Tile", "finish", "multiply", "tile_of"]

# Rows, columns and warps of a tile, and the share of the peak it should reach: a larger one loads
# less for each product. The shares are assumed; `benchmarks/integer_gpu.py --tiles` measures them.
SIZES = ((128, 256, 8, 1.0), (128, 128, 8, 0.85), (128, 64, 4, 0.65), (64, 64, 4, 0.45))
MOST_PIXELS = 2**31 - 2**16  # a pixel's number, and that of a last tile's, fits int32


@triton.jit(do_not_specialize=["zero"])
def product_kernel(
    codes,
    weight,
    sums,
    channel_scale,
    bias,
    out,
    scale,
    zero,
    pixels,
    height,
    width,
    out_height,
    out_width,
    channels,
    columns,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    HAS_ZERO: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    WHOLE_CHUNKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    tiles = tl.cdiv(columns, COLUMNS)
    pixel = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    image = pixel // (out_height * out_width)
    top = pixel // out_width % out_height * STRIDE_H - PAD_H
    left = pixel % out_width * STRIDE_W - PAD_W
    pad = zero if HAS_ZERO else 0
    chunks = tl.cdiv(channels, CHUNK)
    total = tl.full((ROWS, COLUMNS), 0, tl.int32)
    for k in range(KERNEL_H * KERNEL_W * chunks):
        tap = k // chunks
        channel = (k - tap * chunks) * CHUNK + tl.arange(0, CHUNK)
        y = top + tap // KERNEL_W * DILATION_H
        x = left + tap % KERNEL_W * DILATION_W
        seen = (pixel < pixels) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        place = ((image * height + y) * width + x).to(tl.int64) * channels
        row = (column * (KERNEL_H * KERNEL_W) + tap).to(tl.int64) * channels
        left_mask = seen[:, None]
        right_mask = (column < columns)[None, :]
        if not WHOLE_CHUNKS:
            left_mask = left_mask & (channel < channels)[None, :]
            right_mask = right_mask & (channel < channels)[:, None]
        a = tl.load(codes + (place[:, None] + channel[None, :]), mask=left_mask, other=pad)
        b = tl.load(weight + (row[None, :] + channel[:, None]), mask=right_mask, other=0)
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    real = column < columns
    if HAS_ZERO:
        total -= (zero * tl.load(sums + column, mask=real, other=0))[None, :]
    # The one rounding of the sum; none below 2^24.
    result = total.to(tl.float32)
    result = result * (tl.load(channel_scale + column, mask=real, other=0.0) * scale)[None, :]
    if HAS_BIAS:
        result = result + tl.load(bias + column, mask=real, other=0.0)[None, :]
    place = pixel.to(tl.int64)[:, None] * columns + column[None, :]
    mask = (pixel < pixels)[:, None] & real[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["zero"])
def finish_kernel(
    totals,
    sums,
    channel_scale,
    bias,
    out,
    scale,
    zero,
    count,
    columns,
    HAS_ZERO: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SIZE: tl.constexpr,
):
    offset = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = offset < count
    column = offset % columns
    total = tl.load(totals + offset, mask=inside, other=0)
    if HAS_ZERO:
        total -= zero * tl.load(sums + column, mask=inside, other=0)
    result = total.to(tl.float32)
    result = result * (tl.load(channel_scale + column, mask=inside, other=0.0) * scale)
    if HAS_BIAS:
        result = result + tl.load(bias + column, mask=inside, other=0.0)
    tl.store(out + offset, result.to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class Tile:
    """Shape of what one program computes.

    Attributes:
        rows: output pixels.
        columns: output channels.
        chunk: channels of a step.
        warps: that share the work.
    """

    rows: int
    columns: int
    chunk: int
    warps: int


def tile_of(pixels: int, columns: int, channels: int, processors: int) -> Tile:
    """The tile that should take the least time, no larger than the product.

    Every multiprocessor computes one tile at a time; the time is that of the tiles that the busiest
    one gets.

    Args:
        pixels: rows of the product.
        columns: its output channels.
        channels: its input channels.
        processors: multiprocessors of the GPU.
    """
    chunk = 128 if channels % 128 == 0 else 64 if channels > 32 else 32

    def time(rows: int, width: int, share: float) -> float:
        tiles = triton.cdiv(pixels, rows) * triton.cdiv(columns, width)
        return triton.cdiv(tiles, processors) * rows * width / share

    rows, width, warps, _ = min(SIZES, key=lambda size: time(size[0], size[1], size[3]))
    return Tile(_least(rows, pixels), _least(width, columns), chunk, warps)


def _least(size: int, needed: int) -> int:
    """At least 16, which a tensor core takes, and no power of two more than is needed."""
    return min(size, max(16, triton.next_power_of_2(needed)))


@dataclass(frozen=True)
class Epilogue:
    """What becomes of the sums of a product.

    Attributes:
        sums: (c_out,) int32, of each output channel's weights.
        channel_scale: (c_out,) float32.
        bias: (c_out,) float32, or None.
        scale: of the codes.
        zero: the code that stands for zero.
    """

    sums: Tensor
    channel_scale: Tensor
    bias: Tensor | None
    scale: float
    zero: int


def multiply(
    codes: Tensor,
    weight: Tensor,
    geometry: Geometry,
    after: Epilogue,
    dtype: torch.dtype,
    tile: Tile | None = None,
) -> Tensor:
    """Convolution, or product, of int8 codes with an int8 weight.

    Args:
        codes: (B, H, W, c_in) contiguous.
        weight: (c_out, kh, kw, c_in) contiguous.
        geometry: of the product.
        after: scale, zero and bias.
        dtype: of the result: float32, float16 or bfloat16.
        tile: of a program; that of `tile_of` if None.

    Returns:
        (B, H', W', c_out) contiguous.

    Raises:
        BenchError: more pixels than 32 bits count.
    """
    batch, height, width, channels = codes.shape
    columns, kh, kw, _ = weight.shape
    tall, wide = geometry.output_length(0, height, kh), geometry.output_length(1, width, kw)
    pixels = batch * tall * wide
    if max(pixels, batch * height * width) > MOST_PIXELS:
        raise BenchError(f"{pixels} pixels are too many for one product; use a smaller batch")
    out = torch.empty(batch, tall, wide, columns, dtype=dtype, device=codes.device)
    tile = tile or tile_of(pixels, columns, channels, processors(codes.device))
    programs = triton.cdiv(pixels, tile.rows) * triton.cdiv(columns, tile.columns)
    with on_device(codes):
        product_kernel[(programs,)](
            codes,
            weight,
            after.sums,
            after.channel_scale,
            after.channel_scale if after.bias is None else after.bias,
            out,
            after.scale,
            after.zero,
            pixels,
            height,
            width,
            tall,
            wide,
            channels,
            columns,
            *geometry.stride,
            *geometry.padding,
            *geometry.dilation,
            kh,
            kw,
            HAS_ZERO=after.zero != 0,
            HAS_BIAS=after.bias is not None,
            WHOLE_CHUNKS=channels % tile.chunk == 0,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            CHUNK=tile.chunk,
            num_warps=tile.warps,
            num_stages=3,
            enable_fp_fusion=False,
        )
    return out


def finish(totals: Tensor, after: Epilogue, dtype: torch.dtype) -> Tensor:
    """Scale and bias for sums that another product left, (n, c_out) int32 contiguous."""
    out = torch.empty(totals.shape, dtype=dtype, device=totals.device)
    size = 1024
    with on_device(totals):
        finish_kernel[(triton.cdiv(totals.numel(), size),)](
            totals,
            after.sums,
            after.channel_scale,
            after.channel_scale if after.bias is None else after.bias,
            out,
            after.scale,
            after.zero,
            totals.numel(),
            totals.shape[1],
            HAS_ZERO=after.zero != 0,
            HAS_BIAS=after.bias is not None,
            SIZE=size,
            enable_fp_fusion=False,
        )
    return out
