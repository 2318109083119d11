"""Products of rows with the Hadamard block, with the bits of the plain matrix product.

Which way a sum is rounded depends on its order, and so on the routine. oneDNN takes half the time
of PyTorch's matrix product on some processors, and adds in the same order for most block sizes;
where a check on this machine finds that it does, it is used.
"""

import functools
from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.seeds import generator
from hqdm_bench.hadamard.matrix import rotation_matrix

__all__ = ["Routine", "block_routine", "multiply_blocks"]

Routine = Literal["onednn", "pieces", "whole"]

FEWEST_BLOCKS = 256  # below, calling oneDNN costs more than it saves, and sums take other orders
CHECKED_BLOCKS = (FEWEST_BLOCKS, 257, 1000, 2048, 4096)


def multiply_blocks(blocks: Tensor, matrix: Tensor, out: Tensor, routine: Routine) -> Tensor:
    """The product, in ``out`` or in memory of its own.

    Args:
        blocks: (n, 2^k) float32.
        matrix: H, symmetric.
        out: (n, 2^k).
        routine: of `block_routine`.
    """
    if routine == "onednn" and len(blocks) >= FEWEST_BLOCKS:
        return torch.ops.mkldnn._linear_pointwise(blocks, matrix, None, "none", [], "")
    return torch.mm(blocks, matrix, out=out)


@functools.lru_cache(maxsize=16)
def block_routine(order: int) -> Routine:
    """How blocks of 2^k may be multiplied here without changing a bit of the product of all rows.

    The answer depends on nothing but the machine and is kept.

    Returns:
        ``onednn``; ``pieces`` if only the plain product of some of the rows agrees with that of
        all; ``whole`` if not even that does.
    """
    matrix = rotation_matrix(order, torch.float32, torch.device("cpu"))
    random = generator("integer-block-check", order, 0)
    rows = torch.randn(2 * CHECKED_BLOCKS[-1], len(matrix), generator=random)
    rows *= torch.exp(torch.randn(len(rows), 1, generator=random))
    whole = rows @ matrix
    out = torch.empty_like(rows)
    routines: tuple[Routine, ...] = ("onednn", "pieces")
    for routine in routines[0 if hasattr(torch.ops.mkldnn, "_linear_pointwise") else 1 :]:
        if all(
            torch.equal(multiply_blocks(rows[:n], matrix, out[:n], routine), whole[:n])
            for n in (*CHECKED_BLOCKS, len(rows))
        ):
            return routine
    return "whole"
