"""The block transform by sums and differences, in an order that every device can keep.

A matrix product leaves the order of its sums to a library, which differs between processors, GPUs
and shapes. This one is nothing but additions, subtractions and one multiplication in a stated
order, each rounded by itself, so its results are the same numbers wherever they are computed.
"""

import torch
from torch import Tensor

__all__ = ["butterfly"]


def butterfly(blocks: Tensor, order: int) -> Tensor:
    """Multiply blocks of 2^k entries by the orthonormal H.

    Stage j = 0, ..., k-1 replaces entries i and i + 2^j (bit j of i zero) by their sum and their
    difference. The result is multiplied once by 2^(-k/2), rounded to the type of the data.

    Args:
        blocks: (n, 2^k, m) floating point.
        order: k.

    Returns:
        Contiguous, shaped like ``blocks``.
    """
    count, size, trailing = blocks.shape
    for stage in range(order):
        pairs = blocks.reshape(count * size // 2 ** (stage + 1), 2, 2**stage * trailing)
        first, second = pairs.unbind(1)
        blocks = torch.stack([first + second, first - second], 1)
    return blocks.reshape(count, size, trailing) * 2.0 ** (-order / 2)
