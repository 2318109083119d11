"""Power-of-two scaling of input channels with a vote: DMQ (ICCV 2025, arXiv 2507.12933).

A channel of small values takes a step size 2^-k times the tensor's. On integers that is a shift of
the weights of the channel.
"""

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["AGREEMENT", "EXPONENTS", "best_exponents", "vote"]

EXPONENTS = 4  # candidates 1, 1/2, 1/4, 1/8
AGREEMENT = 0.85


def best_exponents(
    x: Tensor,
    scale: Tensor,
    zero: Tensor,
    limits: tuple[int, int],
    axis: int = 1,
    exponents: int = EXPONENTS,
) -> Tensor:
    """The k of each sample and channel whose step 2^-k s makes the least squared error.

    The zero-point stays that of the unscaled grid. Of equal errors the smaller step wins.

    Args:
        x: (N, ...) inputs.
        scale: 0-d step size s of the tensor.
        zero: 0-d zero-point.
        limits: lowest and highest code.
        axis: of the channels; not 0.
        exponents: how many k there are, from 0.

    Returns:
        (N, C) int64.
    """
    samples = x.movedim(axis, 1).flatten(2) if x.dim() > 2 else x[:, :, None]
    errors = []
    for k in reversed(range(exponents)):
        step = scale / 2**k
        codes = (samples / step + zero).round().clamp(*limits)
        errors.append(((codes - zero) * step - samples).square().mean(2))
    return exponents - 1 - torch.stack(errors).argmin(0)


def vote(chosen: Tensor, agreement: float = AGREEMENT) -> Tensor:
    """The k that most samples choose, or 0 where too few of them agree.

    Of equally frequent ones the largest k counts, as released.

    Args:
        chosen: (N, C) of `best_exponents`.
        agreement: kappa, the share of the samples that must choose the winner.

    Returns:
        (C,) int64.

    Raises:
        BenchError: no samples, or a share that is none.
    """
    if not len(chosen) or not 0 <= agreement <= 1:
        raise BenchError(
            f"a vote takes samples and a share from 0 to 1, not {len(chosen)} samples and "
            f"{agreement}"
        )
    # torch.mode takes the smallest of equally frequent values.
    winner = -torch.mode(-chosen, dim=0).values
    share = (chosen == winner).sum(0) / len(chosen)
    return torch.where(share < agreement, 0, winner)
