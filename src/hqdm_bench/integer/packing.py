"""Codes of b bits without gaps between them."""

import math

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["pack", "unpack"]


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes as a stream of bits: bit j of code i is bit b i + j, counted from the lowest.

    Args:
        codes: integers 0..2^b - 1, of any shape.
        bits: b, 1 to 8.

    Returns:
        (ceil(n b / 8),) uint8; the last byte is filled with zeros.

    Raises:
        BenchError: a code does not fit.
    """
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= 2**bits):
        raise BenchError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits")
    flat = codes.detach().reshape(-1).to(torch.uint8)
    if bits == 8:
        return flat.clone()
    stream = flat.new_zeros(8 * math.ceil(len(flat) * bits / 8))
    used = stream[: len(flat) * bits].view(-1, bits)
    for place in range(bits):
        used[:, place] = (flat >> place) & 1
    out = stream.new_zeros(len(stream) // 8)
    for place in range(8):
        out |= stream.view(-1, 8)[:, place] << place
    return out


def unpack(packed: Tensor, bits: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """What `pack` was given, as uint8 of this shape.

    Raises:
        BenchError: the stream has another length than the shape asks for.
    """
    count = math.prod(shape)
    if packed.numel() != math.ceil(count * bits / 8):
        raise BenchError(
            f"{packed.numel()} bytes do not hold {count} codes of {bits} bits; the file is damaged "
            "or belongs to another model"
        )
    if bits == 8:
        return packed.clone().view(shape)
    stream = packed.new_empty(len(packed), 8)
    for place in range(8):
        stream[:, place] = (packed >> place) & 1
    used = stream.view(-1)[: count * bits].view(-1, bits)
    out = packed.new_zeros(count)
    for place in range(bits):
        out |= used[:, place] << place
    return out.view(shape)
