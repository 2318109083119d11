"""Bootstrap over images: what another draw of as many images would have given.

Every replicate draws the images of a set with replacement and measures them again; the reference
images stay. The drawn numbers depend on how many images and replicates there are and on nothing
else, so replicate b of two cells of one protocol has the same noise and labels, and the bootstrap
of their difference is the difference of their replicates.

A replicate of a Frechet distance carries the bias of its N images twice, once from the sample and
once from drawing again. Percentile intervals would leave the truth out, so intervals of replicates
are basic ones: `evaluate.intervals.basic_interval` for the distance of infinitely many images,
`interval_at_count` for that of N, which is what is printed and compared.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.evaluate.frechet import FrechetTarget
from hqdm_bench.evaluate.moments import BLOCK

__all__ = [
    "counts_of",
    "draw_images",
    "frechet_replicates",
    "inception_score_replicates",
    "read_replicates",
    "share_replicates",
    "write_replicates",
]

KIND = "bootstrap replicates"
WEIGHTS = 2**24  # entries of a matrix of split weights: 128 MiB


def draw_images(
    images: int, replicates: int, of: Literal["images", "reference"] = "images"
) -> Tensor:
    """Numbers of the images drawn, with replacement, by each replicate.

    Args:
        images: in the set, N.
        replicates: B; replicate b does not depend on how many there are.
        of: which set; the two draw from streams of their own.

    Returns:
        (B, N) int64 in the order drawn.
    """
    draws = [
        torch.randint(images, (images,), generator=generator("bootstrap", of, images, number))
        for number in range(replicates)
    ]
    return torch.stack(draws) if draws else torch.empty(0, images, dtype=torch.long)


def counts_of(draws: Tensor) -> Tensor:
    """(B, N) float64 how often each image was drawn."""
    counts = torch.zeros(draws.shape, dtype=torch.float64, device=draws.device)
    return counts.scatter_add_(1, draws, torch.ones_like(counts))


def share_replicates(inside: Tensor, draws: Tensor) -> Tensor:
    """(B,) replicates of a share.

    Precision draws the generated images anew and asks whether each lies in the balls of the
    reference, which stay. Recall draws the reference images anew and asks whether each lies in the
    balls of the generated images, which stay: its spread is conditional on the generated set.

    Args:
        inside: (n,) bool.
        draws: (B, n) of `draw_images`.
    """
    return inside.double()[draws].mean(1)


def frechet_replicates(
    points: Tensor,
    draws: Tensor,
    target: FrechetTarget,
    progress: Callable[[], None] = lambda: None,
) -> Tensor:
    """(B,) Frechet distances of drawn images to a fixed reference, with exact moments.

    Args:
        points: (n, d) features of the images.
        draws: (B, n) of `draw_images`, on the same device.
        target: the reference, on the same device.
        progress: called after each replicate.
    """
    centre = torch.stack([part.double().sum(0) for part in points.split(BLOCK)]).sum(0)
    centre /= len(points)
    measure = _few_images if len(points) <= points.shape[1] else _many_images
    found = []
    for value in measure(points, centre, counts_of(draws), target):
        found.append(value.cpu())
        progress()
    return torch.stack(found) if found else torch.empty(0, dtype=torch.float64)


def _many_images(
    points: Tensor, centre: Tensor, counts: Tensor, target: FrechetTarget
) -> Iterator[Tensor]:
    """By the covariance of each replicate."""
    for weights in counts:
        mean, scatter = torch.zeros_like(centre), torch.zeros_like(target.root)
        drawn = weights.nonzero().flatten()
        for numbers in drawn.split(BLOCK):
            own = weights[numbers][:, None]
            weighted = (points[numbers].double() - centre) * own.sqrt()
            mean += (weighted * own.sqrt()).sum(0)
            scatter += weighted.T @ weighted
        total = weights.sum()
        mean /= total
        covariance = (scatter - total * torch.outer(mean, mean)) / (total - 1)
        shift = (centre + mean - target.mean).square().sum()
        product = torch.linalg.eigvalsh(target.root @ covariance @ target.root)
        yield target.combine(shift, covariance.trace(), product)


def _few_images(
    points: Tensor, centre: Tensor, counts: Tensor, target: FrechetTarget
) -> Iterator[Tensor]:
    """By inner products of the images: the root's trace has no more terms than images drawn.

    With Y the centred, weighted images times the root, the eigenvalues of Y'Y other than zero are
    those of YY', which is smaller.
    """
    centred = points.double() - centre
    rotated = centred @ target.root
    inner, squares = rotated @ rotated.T, centred.square().sum(1)
    for weights in counts:
        total = weights.sum()
        drawn = weights.nonzero().flatten()
        own = weights[drawn]
        part = inner[drawn][:, drawn]
        along = part @ own / total
        part = part - along[:, None] - along + own @ along / total
        part = part * own.sqrt() * own.sqrt()[:, None] / (total - 1)
        mean = own @ centred[drawn] / total
        trace = (own @ squares[drawn] - total * mean.square().sum()) / (total - 1)
        shift = (centre + mean - target.mean).square().sum()
        yield target.combine(shift, trace, torch.linalg.eigvalsh(part))


def inception_score_replicates(
    logits: Tensor, draws: Tensor, split_size: int, order: Literal["file", "shuffled"]
) -> Tensor:
    """(B,) Inception scores of drawn images.

    Args:
        logits: (n, c) class scores.
        draws: (B, n) of `draw_images`, on the same device.
        split_size: images per split.
        order: ``file`` sorts the drawn images by their place in the file, ``shuffled`` takes them
            as they were drawn, at random.
    """
    splits = -(-draws.shape[1] // split_size)
    at_once = max(1, WEIGHTS // (splits * draws.shape[1]))
    parts = [
        _scores_of_draws(logits, part, split_size, splits)
        for part in (draws.sort(1).values if order == "file" else draws).split(at_once)
    ]
    return torch.cat(parts).cpu() if parts else torch.empty(0, dtype=torch.float64)


def _scores_of_draws(logits: Tensor, draws: Tensor, split_size: int, splits: int) -> Tensor:
    """The score of a split is exp(mean of sum p log p - sum q log q), q being the mean of p."""
    count, images = draws.shape
    split = torch.arange(images, device=draws.device) // split_size
    line = torch.arange(count, device=draws.device)[:, None] * splits + split
    weights = torch.zeros(count * splits, len(logits), dtype=torch.float64, device=draws.device)
    places = (line.flatten(), draws.flatten())
    weights.index_put_(places, weights.new_ones(()), accumulate=True)
    mean = weights.new_zeros(count * splits, logits.shape[1])
    certainty = weights.new_zeros(count * splits)
    for start in range(0, len(logits), BLOCK):
        p = logits[start : start + BLOCK].double().softmax(1)
        own = weights[:, start : start + BLOCK]
        mean += own @ p
        certainty += own @ torch.xlogy(p, p).sum(1)
    sizes = weights.sum(1)
    mean /= sizes[:, None]
    scores = (certainty / sizes - torch.xlogy(mean, mean).sum(1)).exp()
    return scores.view(count, splits).mean(1)


def write_replicates(path: Path, replicates: Mapping[str, Tensor], images: int) -> None:
    """Write one (B,) vector per metric, atomically; B is 0 where no bootstrap was asked for."""
    header = {"kind": KIND, "images": images}
    write_tensors(path, {key: value.double() for key, value in replicates.items()}, header)


def read_replicates(path: Path) -> dict[str, Tensor]:
    """Read the (B,) float64 vectors by metric key.

    Raises:
        BenchError: the file is missing, damaged, or holds something else.
    """
    tensors, header = read_tensors(path)
    lengths = {value.shape for value in tensors.values()}
    if header.get("kind") != KIND or len(lengths) > 1:
        raise BenchError(f"{path} holds no bootstrap replicates; delete it and run again")
    return tensors
