"""Input codes on a GPU in one pass: rotate, divide by the step size, round, clip, pack.

Imported only where it runs; importing it imports Triton.

Arithmetic, all of it float32 with every operation rounded by itself to the nearest, halves to even:
the centre is subtracted, signs are applied (exact), `hadamard.butterfly`'s stages in its order and
its one multiplication, a true division by the step size, clipping, rounding to an integer. Clipping
to integers and rounding may be exchanged. No operation here can be contracted into another result:
a product that meets a sum is one with +-1. So the codes are those of a fake-quantized layer with
transform ``butterfly`` on any device, ties included.

A layer with transform ``matrix`` is rotated by the library's product first, by the very call that
the fake-quantized layer makes, and the kernel does the rest: two passes, the same codes as that
layer's on that device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.integer.codes import CodeGrid
from hqdm_bench.integer.triton_launch import on_device

__all__ = ["LARGEST_FUSED_ORDER", "encode_on_device"]

LARGEST_FUSED_ORDER = 7
TILE = 2048  # floats of a program
WARPS = 4
# Adding and subtracting 1.5 * 2^23 rounds magnitudes below 2^22 to integers, halves to even.
ROUNDING = tl.constexpr(12582912.0)


@triton.jit(do_not_specialize=["zero"])
def encode_kernel(
    source,
    out,
    centre,
    signs,
    scale,
    low,
    high,
    zero,
    count,
    channels,
    ORDER: tl.constexpr,
    FACTOR: tl.constexpr,
    HAS_CENTRE: tl.constexpr,
    HAS_SIGNS: tl.constexpr,
    SIZE: tl.constexpr,
):
    # A channels-last activation is one run of floats, and whole blocks of it are whole blocks of
    # channels. The offset has 64 bits: a large batch has more than 2^31 elements.
    offset = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = offset < count
    y = tl.load(source + offset, mask=inside, other=0.0).to(tl.float32)
    if HAS_CENTRE:
        y = y - tl.load(centre + offset % channels, mask=inside, other=0.0)
    if HAS_SIGNS:
        y = y * tl.load(signs + offset % channels, mask=inside, other=1.0)
    for stage in tl.static_range(ORDER):
        pairs = tl.reshape(y, (SIZE // 2 ** (stage + 1), 2, 2**stage))
        first, second = tl.split(tl.permute(pairs, (0, 2, 1)))
        pairs = tl.permute(tl.join(first + second, first - second), (0, 2, 1))
        y = tl.reshape(pairs, (SIZE,))
    if ORDER > 0:
        y = y * FACTOR
    # "/" would be an approximation on a GPU.
    y = tl.div_rn(y, tl.full((SIZE,), scale, tl.float32))
    y = tl.minimum(tl.maximum(y, low), high)
    y = (y + ROUNDING) - ROUNDING
    code = y.to(tl.int32) + zero
    tl.store(out + offset, code.to(out.dtype.element_ty), mask=inside)


def encode_on_device(
    x: Tensor,
    grid: CodeGrid,
    rotation: BlockRotation | None,
    centre: Tensor | None,
    linear: bool,
) -> Tensor:
    """Codes as int8, whole numbers plus ``grid.zero``.

    Args:
        x: floating point, (..., C) of a linear layer, (B, C, L) or (B, C, H, W) of a convolution.
        grid: of the step; its values plus its zero lie in -128..127.
        rotation: along the channels, or None.
        centre: (C,) or None.
        linear: whether the channels are the last axis.

    Returns:
        int8, shaped like x; images are channels-last.
    """
    if rotation is not None and not _fused(rotation):
        x = x.float()
        if centre is not None:
            x = x - (centre if linear else centre.view(1, -1, *[1] * (x.dim() - 2)))
        x, centre, rotation = rotation(x), None, None
    rows = x if linear else x.movedim(1, -1)
    rows = rows.contiguous()  # as it is where the channels come last already
    codes = torch.empty(rows.shape, dtype=torch.int8, device=x.device)
    _launch(rows, codes, grid, rotation, centre)
    return codes if linear else codes.movedim(-1, 1)


def _fused(rotation: BlockRotation) -> bool:
    """Whether the kernel rotates: its sums are the layer's, and a block fits a program."""
    return rotation.transform == "butterfly" and rotation.order <= LARGEST_FUSED_ORDER


def _launch(
    rows: Tensor,
    codes: Tensor,
    grid: CodeGrid,
    rotation: BlockRotation | None,
    centre: Tensor | None,
) -> None:
    count = rows.numel()
    order = 0 if rotation is None else rotation.order
    signs = None if rotation is None else rotation.signs
    with on_device(rows):
        encode_kernel[(triton.cdiv(count, TILE),)](
            rows,
            codes,
            rows if centre is None else centre.contiguous(),
            rows if signs is None else signs,
            grid.scale,
            float(grid.low),
            float(grid.high),
            grid.zero,
            count,
            rows.shape[-1],
            ORDER=order,
            FACTOR=2.0 ** (-order / 2),
            HAS_CENTRE=centre is not None,
            HAS_SIGNS=signs is not None,
            SIZE=TILE,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
