"""oneDNN's int8 products, through the quantized operators that PyTorch has for x86.

uint8 codes, int8 weights, 32-bit accumulators. The code that stands for zero is subtracted, and
padded, inside the integer sum. What comes out is the accumulator times its scale, plus the bias, in
float32: the sum is rounded once when it leaves the integers, and not at all below 2^24.

With VNNI instructions the sum is exact. Without them oneDNN adds pairs of products in 16 bits,
which saturate; `backends` finds that out on values that would.
"""

from typing import Any

import torch
from torch import Tensor

from hqdm_bench.integer.kernels import Kernel

__all__ = ["OneDNNKernel"]


class OneDNNKernel(Kernel):
    """`onednn::qconv2d_pointwise` and `onednn::qlinear_pointwise`."""

    name = "onednn"

    def _prepare(self, weight: Tensor) -> None:
        self._weight: Tensor | None = weight.contiguous()
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._packed: Tensor | None = None

    def _pack(self, shape: list[int]) -> Tensor:
        """The weight in the blocks that oneDNN wants for inputs of this shape."""
        assert self._weight is not None
        weight, self._weight = self._weight, None
        place = self.geometry
        if place.kind == "linear":
            return torch.ops.onednn.qlinear_prepack(weight, shape)
        # A zero-point other than 0 at packing time: one of a later call is then taken care of.
        window = (list(place.stride), list(place.padding), list(place.dilation), 1)
        return torch.ops.onednn.qconv_prepack(weight, self.channel_scale, 1.0, 1, *window, shape)

    def __call__(
        self,
        codes: Tensor,
        zero: int,
        scale: float,
        bias: Tensor | None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """See `Kernel`."""
        if self._packed is None:  # only now is the shape of the input known
            self._packed = self._pack(list(codes.shape))
        place = self.geometry
        after: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        head = (codes, scale, zero, self._packed, self.channel_scale, self._zeros, bias)
        if place.kind == "linear":
            return torch.ops.onednn.qlinear_pointwise(*head, *after)
        window = (list(place.stride), list(place.padding), list(place.dilation), 1)
        return torch.ops.onednn.qconv2d_pointwise(*head, *window, *after)
