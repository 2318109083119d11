"""Products of byte codes with int8 weights: the interface, and two exact implementations.

A kernel computes scale * c[o] * sum (q - z) w + bias, where q are codes of one byte, z is the
integer that stands for zero (padding counts as q = z), and w is one digit of the weight. Bytes are
unsigned on the CPU, whose operators take no others; a kernel may have signed ones.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.integer.codes import CodeGrid, encode
from hqdm_bench.integer.geometry import Geometry

__all__ = [
    "FLOAT32_EXACT",
    "ExactFloatKernel",
    "Kernel",
    "ReferenceKernel",
    "accumulate",
    "signed_zero",
]

FLOAT32_EXACT = 2**24


class Kernel(ABC):
    """A weight made ready.

    Class attributes: ``device`` is the type of device it runs on, ``codes_dtype`` the type of its
    codes, ``dtypes`` what it can return.

    Args:
        weight: (c_out, c_in) int8, or (c_out, c_in, kh, kw) for a convolution.
        channel_scale: (c_out,) float32.
        geometry: of the product.
        bound: no sum of a row exceeds it in magnitude.
    """

    name: ClassVar[str]
    device: ClassVar[str] = "cpu"
    codes_dtype: ClassVar[torch.dtype] = torch.uint8
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32,)

    def __init__(
        self, weight: Tensor, channel_scale: Tensor, geometry: Geometry, bound: int
    ) -> None:
        self.channel_scale = channel_scale
        self.geometry = geometry
        self.bound = bound
        self._prepare(weight)

    @abstractmethod
    def _prepare(self, weight: Tensor) -> None:
        """Bring the weight into the layout of the product."""

    @staticmethod
    def zero_code(low: int, high: int) -> int:
        """The code that stands for zero on a grid from low to high."""
        return -low

    @staticmethod
    def encode(
        x: Tensor,
        grid: CodeGrid,
        rotation: BlockRotation | None,
        centre: Tensor | None,
        linear: bool,
    ) -> Tensor:
        """Codes of an input, see `codes.encode`."""
        return encode(x, grid, rotation, centre, linear)

    @abstractmethod
    def __call__(
        self,
        codes: Tensor,
        zero: int,
        scale: float,
        bias: Tensor | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The product.

        Args:
            codes: of its type, (rows, c_in), or (B, c_in, H, W) channels-last for a convolution.
            zero: z.
            scale: of the codes.
            bias: (c_out,) float32, or None.
            dtype: of the result, one of ``dtypes``.

        Returns:
            (rows, c_out) or (B, c_out, H', W') channels-last.
        """


def signed_zero(low: int, high: int) -> int:
    """The signed byte that stands for zero on a grid: 0 where the grid fits signed bytes.

    Raises:
        BenchError: the zero of the grid is too far from it.
    """
    if low >= -128 and high <= 127:
        return 0
    zero = -128 - low
    if not -128 <= zero <= 127 or high + zero > 127:
        raise BenchError(
            f"an input grid from {low} to {high} steps around zero does not fit signed bytes; use "
            "the backend 'cpu'"
        )
    return zero


def accumulate(codes: Tensor, zero: int, weight: Tensor, geometry: Geometry) -> Tensor:
    """Sums (q - z) w in 64-bit integers, one kernel tap after the other: the oracle.

    Args:
        codes: integers, (rows, c_in) or (B, c_in, H, W).
        zero: z.
        weight: integers, (c_out, c_in) or (c_out, c_in, kh, kw).
        geometry: of the product.

    Returns:
        int64, (rows, c_out) or (B, c_out, H', W').
    """
    values, weight = codes.long() - zero, weight.long()
    if geometry.kind == "linear":
        return values @ weight.t()
    (sh, sw), (ph, pw), (dh, dw) = geometry.stride, geometry.padding, geometry.dilation
    values = functional.pad(values, (pw, pw, ph, ph)).permute(0, 2, 3, 1)
    kh, kw = weight.shape[2:]
    height = geometry.output_length(0, codes.shape[2], kh)
    width = geometry.output_length(1, codes.shape[3], kw)
    out = values.new_zeros(len(values), height, width, len(weight))
    for i in range(kh):
        rows = slice(i * dh, i * dh + sh * (height - 1) + 1, sh)
        for j in range(kw):
            columns = slice(j * dw, j * dw + sw * (width - 1) + 1, sw)
            out += values[:, rows, columns] @ weight[:, :, i, j].t()
    return out.permute(0, 3, 1, 2)


def _epilogue(sums: Tensor, channel_scale: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """Scale and bias in float64, rounded once."""
    shape = (-1, 1, 1) if sums.dim() == 4 else (-1,)
    out = sums.double() * (channel_scale.double() * scale).view(shape)
    if bias is not None:
        out = out + bias.double().view(shape)
    return out.float()


class ReferenceKernel(Kernel):
    """Plain 64-bit integers, slow."""

    name = "reference"

    def _prepare(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(
        self,
        codes: Tensor,
        zero: int,
        scale: float,
        bias: Tensor | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """See `Kernel`."""
        sums = accumulate(codes, zero, self._weight, self.geometry)
        out = _epilogue(sums, self.channel_scale, scale, bias)
        return out.contiguous(memory_format=torch.channels_last) if out.dim() == 4 else out


class ExactFloatKernel(Kernel):
    """Floating point that cannot round: float32 while no sum reaches 2^24, else float64.

    Every product and every partial sum is an integer below that bound, whatever their order.
    """

    name = "exact_float"

    def _prepare(self, weight: Tensor) -> None:
        dtype = torch.float32 if self.bound < FLOAT32_EXACT else torch.float64
        self._weight = weight.to(dtype)
        if weight.dim() == 4:
            self._weight = self._weight.contiguous(memory_format=torch.channels_last)

    def __call__(
        self,
        codes: Tensor,
        zero: int,
        scale: float,
        bias: Tensor | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """See `Kernel`."""
        values = codes.to(self._weight.dtype).sub_(zero)
        shape = self.geometry
        if shape.kind == "linear":
            sums = values @ self._weight.t()
        else:
            sums = functional.conv2d(
                values, self._weight, None, shape.stride, shape.padding, shape.dilation
            )
        return _epilogue(sums, self.channel_scale, scale, bias)
