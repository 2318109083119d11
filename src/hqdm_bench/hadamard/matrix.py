"""The Sylvester-Hadamard matrix."""

import functools
import math

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["MAX_ORDER", "rotation_matrix", "sylvester"]

MAX_ORDER = 12  # 4096 x 4096; no layer of the three models has a wider block


def sylvester(order: int) -> Tensor:
    """Orthonormal Sylvester matrix H, symmetric and its own inverse.

    H_0 = [1] and H_k = [[H_{k-1}, H_{k-1}], [H_{k-1}, -H_{k-1}]] / sqrt(2) (HQ-DM, Eq. 6; block
    size 2^k, the paper's default order is k = 5).

    Args:
        order: k in 0..12.

    Returns:
        (2^k, 2^k) float64 with entries +-2^(-k/2).

    Raises:
        BenchError: the order is outside 0..12.
    """
    if not 0 <= order <= MAX_ORDER:
        raise BenchError(f"Hadamard order {order} is not supported; choose 0 to {MAX_ORDER}")
    signs = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(order):
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    # One division at the end: the entries are the correctly rounded 2^(-k/2), not a product of
    # roundings.
    return signs / math.sqrt(2**order)


@functools.lru_cache(maxsize=64)
def rotation_matrix(order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The Sylvester matrix in the precision and on the device of the data it multiplies; read only.

    Remembered because a layer needs it on every call and building it costs more than a small
    product.
    """
    # A matrix built under inference mode could not be saved for a later backward pass.
    with torch.inference_mode(False), torch.no_grad():
        return sylvester(order).to(device=device, dtype=dtype)
