"""Rotation of one axis of a tensor in consecutive blocks."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard.butterfly import butterfly
from hqdm_bench.hadamard.matrix import rotation_matrix

__all__ = ["BlockRotation", "Transform", "block_rotate", "divides", "fold", "largest_order"]

# How x H is computed: a product with the matrix, or sums and differences in a stated order.
Transform = Literal["matrix", "butterfly"]


def divides(channels: int, order: int) -> bool:
    """Whether ``channels`` splits into whole blocks of 2^order."""
    size: int = 2**order
    return channels % size == 0


def largest_order(channels: int, order: int) -> int:
    """The largest j up to ``order`` whose blocks of 2^j divide ``channels``."""
    return next(smaller for smaller in range(order, -1, -1) if divides(channels, smaller))


def block_rotate(x: Tensor, order: int, dim: int, transform: Transform = "matrix") -> Tensor:
    """Multiply consecutive blocks of 2^order entries along ``dim`` by the orthonormal H.

    H is symmetric and its own inverse, so applying this twice gives x back, and the same function
    serves X H and H X. The shape and, for channels-last images, the memory layout are kept.

    Args:
        x: any floating tensor.
        order: k of the block size 2^k; 0 is the identity.
        dim: axis to rotate, negative counts from the end.
        transform: ``matrix`` leaves the order of the sums to the library of the device,
            ``butterfly`` gives the same numbers on every device (see `butterfly`).

    Raises:
        BenchError: the axis does not split into whole blocks; falling back to the identity is the
            caller's choice (see `divides`).
    """
    dim = dim % x.dim()
    size, channels = 2**order, x.shape[dim]
    if not divides(channels, order):
        raise BenchError(
            f"axis {dim} of shape {tuple(x.shape)} does not split into Hadamard blocks of {size}; "
            "leave this layer unrotated or choose a smaller order"
        )
    if order == 0:
        return x
    if _is_channels_last(x) and dim == 1:
        rows = x.permute(0, 2, 3, 1)
        return block_rotate(rows, order, 3, transform).permute(0, 3, 1, 2)
    trailing = math.prod(x.shape[dim + 1 :])
    if transform == "butterfly":
        return butterfly(x.reshape(-1, size, trailing), order).view(x.shape)
    matrix = rotation_matrix(order, x.dtype, x.device)
    if trailing == 1:
        return (x.reshape(-1, size) @ matrix).view(x.shape)
    blocks = x.reshape(-1, size, trailing)  # (leading * blocks, 2^k, trailing)
    # bmm rather than matmul: matmul may fold the batch into the rows, which transposes and copies
    # x.
    return torch.bmm(matrix.expand(len(blocks), size, size), blocks).view(x.shape)


def fold(weight: Tensor, order: int, signs: Tensor | None = None) -> Tensor:
    """Rotate a weight along its input channels, so that op(x, folded) = op(x R^T, weight).

    Exact for every kernel size, stride and zero padding, because the rotation acts on each tap
    alone. R = D H with the signs D on its diagonal (the identity if none are given).

    Args:
        weight: (c_out, c_in, ...) of an ungrouped convolution or a linear layer.
        order: k of the block size 2^k.
        signs: (c_in,) of +-1, or None.
    """
    return BlockRotation(order, 1, signs)(weight)


def _is_channels_last(x: Tensor) -> bool:
    return (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )


@dataclass(frozen=True, eq=False)
class BlockRotation:
    """Rotation x -> x R of one axis, R = D H: signs on the entries, then Hadamard blocks.

    Attributes:
        order: k of the block size 2^k.
        dim: axis that is rotated.
        signs: diagonal of D, one +-1 an entry of the axis; None for the plain H, which is its own
            inverse. Random signs (QuaRot) keep a mean that neighbours share from adding up in the
            first entry of a block.
        transform: how the product with H is computed, see `block_rotate`.
    """

    order: int
    dim: int
    signs: Tensor | None = None
    transform: Transform = "matrix"

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate x along the axis: x D H."""
        return block_rotate(self._flip(x), self.order, self.dim, self.transform)

    def inverse(self, y: Tensor) -> Tensor:
        """Rotate back: y H D."""
        return self._flip(block_rotate(y, self.order, self.dim, self.transform))

    def _flip(self, x: Tensor) -> Tensor:
        if self.signs is None:
            return x
        return x * self.signs.view(-1, *[1] * (x.dim() - 1 - self.dim % x.dim()))
