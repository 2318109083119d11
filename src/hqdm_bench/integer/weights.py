"""Integer weights: the rotation folded in, and digits where a byte is too small.

A weight is (n - z) delta with codes n and one integer zero-point z an output channel. Rotating its
input back, x_hat = s q H D with codes q, is a rotation of the weight: q H D w = q (H D w). Without
its factor 2^(-k/2) the Hadamard matrix holds +-1, so the rotated weight is an integer again, and
the factor goes into the scale. Every kernel tap is rotated alone, so stride and padding do not
matter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import sylvester

__all__ = ["INT32_LIMIT", "Digit", "check_overflow", "digits", "fold_codes", "rotate_codes"]

INT32_LIMIT = 2**31
DIGIT = 128  # base; the low digit lies in [-64, 63], the high one takes the rest


@dataclass(frozen=True)
class Digit:
    """One int8 part of a weight.

    Attributes:
        factor: what the part counts, 1 or 128.
        weight: (rows, c_in, ...) int8.
        rows: output channels it belongs to; None for all of them.
    """

    factor: int
    weight: Tensor
    rows: Tensor | None = None


def rotate_codes(codes: Tensor, order: int, dim: int) -> Tensor:
    """Multiply blocks of 2^k entries along an axis by the Hadamard matrix of +-1.

    Exact as long as the results stay below 2^24 in float32, or 2^53 in float64.

    Args:
        codes: integers in floating point, any shape.
        order: k; 0 is the identity.
        dim: axis, a multiple of 2^k long.
    """
    if order == 0:
        return codes
    signs = sylvester(order).sign().to(codes)
    moved = codes.movedim(dim, -1)
    return (moved.reshape(-1, 2**order) @ signs).view(moved.shape).movedim(-1, dim)


def fold_codes(weight: Tensor, order: int, signs: Tensor | None) -> Tensor:
    """An integer weight for codes in rotated coordinates: H D w without the factor 2^(-k/2).

    Args:
        weight: (c_out, c_in, ...) integers n - z, of any integer type.
        order: k of the blocks along the input channels; 0 leaves the weight as it is.
        signs: diagonal of D, (c_in,) of +-1, or None.

    Returns:
        (c_out, c_in, ...) int16.
    """
    if order == 0:
        return weight.to(torch.int16)
    # At most 255 * 4096 in magnitude before the cast: exact in float32.
    weight = weight.to(torch.float32)
    if signs is not None:
        weight = weight * signs.to(weight).view(1, -1, *[1] * (weight.dim() - 2))
    rotated = rotate_codes(weight, order, 1)
    largest = int(rotated.abs().max()) if rotated.numel() else 0
    if largest > torch.iinfo(torch.int16).max:
        raise BenchError(
            f"a weight rotated in blocks of {2**order} reaches {largest}, beyond two int8 digits; "
            "use a smaller Hadamard order"
        )
    return rotated.to(torch.int16)


def digits(weight: Tensor) -> list[Digit]:
    """Split an integer weight into int8 digits, only where it leaves [-128, 127].

    w = low + 128 high with low in [-64, 63] for the output channels that need it; the others keep
    their one digit.

    Args:
        weight: (c_out, c_in, ...) int16, at most 16319 in magnitude.

    Raises:
        BenchError: a weight is beyond two digits.
    """
    flat = weight.flatten(1)
    outside = (flat.amin(1) < -128) | (flat.amax(1) > 127)
    if not bool(outside.any()):
        return [Digit(1, weight.to(torch.int8))]
    rows = outside.nonzero().flatten()
    wide = weight[rows].to(torch.int32)
    high = torch.div(wide + DIGIT // 2, DIGIT, rounding_mode="floor")
    if int(high.abs().max()) > 127:
        raise BenchError(f"weights up to {int(wide.abs().max())} do not fit two int8 digits")
    low = weight.clone()
    low[rows] = (wide - DIGIT * high).to(torch.int16)
    return [Digit(1, low.to(torch.int8)), Digit(DIGIT, high.to(torch.int8), rows)]


def check_overflow(parts: list[Digit], largest: int, name: str) -> int:
    """The largest sum an int32 accumulator can meet: max over rows of sum |w| times the code.

    Args:
        parts: digits; every one has accumulators of its own.
        largest: of the magnitudes of the codes, and of the bytes that hold them.
        name: of the layer, for the message.

    Raises:
        BenchError: it does not fit 32 bits.
    """
    sums = [part.weight.flatten(1).to(torch.int32).abs().sum(1).max() for part in parts]
    bound = largest * max(int(value) for value in sums)
    if bound >= INT32_LIMIT:
        raise BenchError(
            f"layer '{name}': an accumulator could reach {bound}, beyond 32 bits; keep this layer "
            "out of the policy or give it fewer bits"
        )
    return bound
