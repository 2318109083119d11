"""Inception score from class scores."""

import math
from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.evaluate.feature_types import require_matrix

__all__ = ["inception_score"]


def inception_score(
    logits: Tensor, split_size: int = 5000, order: Literal["file", "shuffled"] = "file"
) -> float:
    """Mean over splits of exp(E_x KL(p(y|x) || p(y))), p(y) being the split's own mean.

    Salimans et al. 2016, with the splits of the ADM evaluator: consecutive slices of ``split_size``
    images, a last short one counted like the others. The score depends on the split size and, for
    images sorted by class, collapses to that of the few classes of a slice. The metrics file
    holds the score in both orders, and the protocol beside it says how labels are ordered.

    Args:
        logits: (n, c) scores without bias.
        split_size: images per split.
        order: ``file`` takes images as they come, ``shuffled`` in the permutation named
            ``inception-score`` (the same for every set of n images).

    Raises:
        BenchError: no (n, c) matrix, no images, a split size that is not positive, another order,
            or scores that are not finite.
    """
    require_matrix("class scores", logits)
    if order not in ("file", "shuffled"):
        raise BenchError(f"images are taken in order 'file' or 'shuffled', not '{order}'")
    if split_size <= 0 or not len(logits):
        raise BenchError(
            f"the Inception score of {len(logits)} images in splits of {split_size} is not "
            "defined; both must be positive"
        )
    if order == "shuffled":
        logits = logits[torch.randperm(len(logits), generator=generator("inception-score"))]
    scores = [_split_score(part.double()) for part in logits.split(split_size)]
    score = float(torch.stack(scores).mean())
    if not math.isfinite(score):
        raise BenchError("class scores hold values that are not finite; extract them again")
    return score


def _split_score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    divergence = torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))
    return divergence.sum(1).mean().exp()
