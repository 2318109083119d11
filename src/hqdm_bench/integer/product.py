"""The product of split codes with split weights."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.kernels import Kernel
from hqdm_bench.integer.weights import DIGIT, Digit, check_overflow, digits

__all__ = ["ByteCodes", "Product", "split_values"]


@dataclass(frozen=True)
class ByteCodes:
    """One byte of codes.

    Attributes:
        factor: what it counts, 1 or 128.
        codes: uint8.
        zero: the byte that stands for zero.
    """

    factor: int
    codes: Tensor
    zero: int


def split_values(values: Tensor, bound: int) -> list[ByteCodes]:
    """Bytes for whole numbers: one where they fit, else a low and a high one.

    Codes that are rotated back along the width reach 2^k times the largest code: 96 at 3 bits and
    blocks of 32, one byte; 224 at 4 bits, two.

    Args:
        values: whole numbers in floating point.
        bound: of their magnitude, at most 16319.
    """
    if 2 * bound <= 255:
        return [ByteCodes(1, _bytes(values, bound), bound)]
    high = torch.floor((values + DIGIT // 2) / DIGIT)
    zero = (bound + DIGIT // 2) // DIGIT
    low = _bytes(values - DIGIT * high, DIGIT // 2)
    return [ByteCodes(1, low, DIGIT // 2), ByteCodes(DIGIT, _bytes(high, zero), zero)]


def _bytes(values: Tensor, zero: int) -> Tensor:
    codes = (values + zero).to(torch.uint8)
    image = codes.dim() == 4
    return codes.contiguous(memory_format=torch.channels_last) if image else codes.contiguous()


class Product:
    """A weight ready to be multiplied, digit by digit.

    Attributes:
        parts: digits of the weight, each with its kernel.
        bound: no accumulator exceeds it in magnitude.
    """

    def __init__(
        self, parts: list[tuple[Digit, Kernel]], geometry: Geometry, c_out: int, bound: int
    ) -> None:
        self.parts = parts
        self.geometry = geometry
        self.c_out = c_out
        self.bound = bound

    @classmethod
    def make(
        cls,
        weight: Tensor,
        scale: Tensor,
        geometry: Geometry,
        largest: int,
        kernel: type[Kernel],
        name: str,
    ) -> Self:
        """Split a weight and hand it to kernels.

        Args:
            weight: (c_out, c_in, ...) int16.
            scale: (c_out,) step sizes.
            geometry: of the product.
            largest: magnitude of a code, or of the byte that holds it.
            kernel: what multiplies.
            name: of the layer, for messages.

        Raises:
            BenchError: an accumulator could leave 32 bits.
        """
        found = digits(weight.unsqueeze(2) if geometry.kind == "conv1d" else weight)
        bound = check_overflow(found, largest, name)
        parts = []
        for digit in found:
            own = scale if digit.rows is None else scale[digit.rows]
            own = (own.float() * digit.factor).contiguous()
            parts.append((digit, kernel(digit.weight, own, geometry, bound)))
        return cls(parts, geometry, len(weight), bound)

    def __call__(
        self, codes: list[ByteCodes], scale: float, bias: Tensor | None, shape: torch.Size
    ) -> Tensor:
        """The layer's output.

        Args:
            codes: bytes of the input, shaped like it.
            scale: of the codes.
            bias: (c_out,) or None.
            shape: of the layer's input.
        """
        out: Tensor | None = None
        for code in codes:
            entry = self._enter(code.codes)
            for digit, kernel in self.parts:
                first = out is None
                part = kernel(entry, code.zero, scale * code.factor, bias if first else None)
                if out is None:
                    out = part
                elif digit.rows is None:
                    out = out.add_(part)
                else:
                    out = out.index_add_(1, digit.rows, part)
        assert out is not None
        if self.geometry.kind == "linear":
            return out.view(*shape[:-1], self.c_out)
        return out.squeeze(2) if self.geometry.kind == "conv1d" else out

    def _enter(self, codes: Tensor) -> Tensor:
        if self.geometry.kind == "linear":
            return codes.reshape(-1, codes.shape[-1])
        if self.geometry.kind == "conv1d":
            return codes.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        return codes
