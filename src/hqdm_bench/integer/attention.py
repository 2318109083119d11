"""Products of attention between integer layers, in float32."""

import math

import torch
from torch import Tensor

from hqdm_bench.models.attention import RowProduct

__all__ = ["OneDNNRowProduct"]

SMALLEST = 2**21  # multiply-accumulates of a product from which the detour pays


class OneDNNRowProduct(RowProduct):
    """The products of attention through oneDNN.

    PyTorch sends float32 matrix products to the BLAS, which takes twice as long on some processors.
    The numbers are the same up to rounding.
    """

    @staticmethod
    def available() -> bool:
        """Whether this PyTorch has the operator."""
        return torch.backends.mkldnn.is_available() and hasattr(
            torch.ops.mkldnn, "_linear_pointwise"
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Map (..., n, d) and (..., m, d) to a b^T, (..., n, m)."""
        small = a.shape[-2] * b.shape[-2] * b.shape[-1] < SMALLEST
        if small or a.dtype != torch.float32 or a.device.type != "cpu":
            return super().forward(a, b)
        lead = a.shape[:-2]
        count = math.prod(lead)
        left = a.reshape(count, *a.shape[-2:])
        right = b.expand(*lead, *b.shape[-2:]).reshape(count, *b.shape[-2:])
        parts = [
            torch.ops.mkldnn._linear_pointwise(
                rows.contiguous(), others.contiguous(), None, "none", [], ""
            )
            for rows, others in zip(left, right, strict=True)
        ]
        whole = parts[0] if count == 1 else torch.stack(parts)
        return whole.view(*lead, a.shape[-2], b.shape[-2])
