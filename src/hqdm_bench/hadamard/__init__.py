"""Block Hadamard transforms: construction, application along any axis, folding into weights."""

from hqdm_bench.hadamard.butterfly import butterfly
from hqdm_bench.hadamard.matrix import MAX_ORDER, sylvester
from hqdm_bench.hadamard.rotate import (
    BlockRotation,
    Transform,
    block_rotate,
    divides,
    fold,
    largest_order,
)

__all__ = [
    "MAX_ORDER",
    "BlockRotation",
    "Transform",
    "block_rotate",
    "butterfly",
    "divides",
    "fold",
    "largest_order",
    "sylvester",
]
