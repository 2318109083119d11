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
        codes: uint8, or int8 for a kernel with signed codes.
        zero: the byte that stands for zero.
    """

    factor: int
    codes: Tensor
    zero: int


def split_values(values: Tensor, bound: int, dtype: torch.dtype = torch.uint8) -> list[ByteCodes]:
    """Bytes for whole numbers: one where they fit, else a low and a high one.

    Codes that are rotated back along the width reach 2^k times the largest code: 96 at 3 bits and
    blocks of 32, one byte; 224 at 4 bits, two.

    Args:
        values: whole numbers in floating point.
        bound: of their magnitude, at most 16319.
        dtype: of the codes; signed ones have zero at 0.
    """
    if 2 * bound <= 255:
        return [_bytes(1, values, bound, dtype)]
    high = torch.floor((values + DIGIT // 2) / DIGIT)
    zero = (bound + DIGIT // 2) // DIGIT
    return [
        _bytes(1, values - DIGIT * high, DIGIT // 2, dtype),
        _bytes(DIGIT, high, zero, dtype),
    ]


def _bytes(factor: int, values: Tensor, bound: int, dtype: torch.dtype) -> ByteCodes:
    zero = 0 if dtype == torch.int8 else bound
    codes = (values + zero).to(dtype)
    image = codes.dim() == 4
    layout = torch.channels_last if image else torch.contiguous_format
    return ByteCodes(factor, codes.contiguous(memory_format=layout), zero)


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
        self,
        codes: list[ByteCodes],
        scale: float,
        bias: Tensor | None,
        shape: torch.Size,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The layer's output.

        Args:
            codes: bytes of the input, shaped like it.
            scale: of the codes.
            bias: (c_out,) or None.
            shape: of the layer's input.
            dtype: of the output; parts are added in float32.
        """
        whole = len(codes) == len(self.parts) == 1
        inner = dtype if whole else torch.float32
        out: Tensor | None = None
        for code in codes:
            entry = self._enter(code.codes)
            for digit, kernel in self.parts:
                first = out is None
                part = kernel(entry, code.zero, scale * code.factor, bias if first else None, inner)
                if out is None:
                    out = part
                elif digit.rows is None:
                    out = out.add_(part)
                else:
                    out = out.index_add_(1, digit.rows, part)
        assert out is not None
        out = out.to(dtype)
        if self.geometry.kind == "linear":
            return out.view(*shape[:-1], self.c_out)
        return out.squeeze(2) if self.geometry.kind == "conv1d" else out

    def _enter(self, codes: Tensor) -> Tensor:
        if self.geometry.kind == "linear":
            return codes.reshape(-1, codes.shape[-1])
        if self.geometry.kind == "conv1d":
            return codes.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        return codes
