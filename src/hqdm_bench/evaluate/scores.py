"""Every distribution metric of an image set, with its replicates and its bias."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.progress import Progress
from hqdm_bench.evaluate.bootstrap import (
    counts_of,
    draw_images,
    frechet_replicates,
    inception_score_replicates,
    share_replicates,
)
from hqdm_bench.evaluate.class_scores import inception_score
from hqdm_bench.evaluate.feature_types import Features
from hqdm_bench.evaluate.frechet import FrechetTarget
from hqdm_bench.evaluate.frechet_bias import frechet_bias
from hqdm_bench.evaluate.moments import Gaussian, streaming_moments
from hqdm_bench.evaluate.overlap import block_count, measure_overlap

__all__ = ["ReferenceSide", "ScoreSettings", "Scores", "score_images"]

ORDERS: dict[str, Literal["file", "shuffled"]] = {"is": "file", "is_shuffled": "shuffled"}


@dataclass(frozen=True)
class ScoreSettings:
    """What metrics depend on besides features.

    Attributes:
        split_size: images per split of the Inception score.
        k: neighbour whose distance is the radius of precision and recall.
        kernel: whether to measure the kernel distance.
        replicates: of the bootstrap over images; 0 makes none.
    """

    split_size: int = 5000
    k: int = 3
    kernel: bool = True
    replicates: int = 0


@dataclass(frozen=True)
class ReferenceSide:
    """What an image set is measured against; what is None is not measured.

    Attributes:
        pool: Gaussian of the pooled features.
        spatial: of the spatial ones.
        points: (m, d) pooled features of single images.
        clean: Gaussian of the pooled features of images resized as clean-fid does.
    """

    pool: Gaussian | None
    spatial: Gaussian | None
    points: Tensor | None
    clean: Gaussian | None = None


@dataclass
class Scores:
    """Metrics by key: fid, sfid, is, is_shuffled, kid, precision, recall, clean_fid.

    Attributes:
        values: shares in [0, 1]; ``is`` in the order of the file.
        bias: first-order bias of the Frechet distances, see `frechet_bias`.
        replicates: (B,) float64 each; empty where none were asked for.
    """

    values: dict[str, float] = field(default_factory=dict)
    bias: dict[str, float] = field(default_factory=dict)
    replicates: dict[str, Tensor] = field(default_factory=dict)

    @property
    def standard_errors(self) -> dict[str, float | None]:
        """Standard deviation of each metric's replicates; None without replicates."""
        return {
            key: float(self.replicates[key].std()) if key in self.replicates else None
            for key in self.values
        }


def score_images(
    features: Features,
    reference: ReferenceSide,
    settings: ScoreSettings,
    source: str,
    device: torch.device | None = None,
) -> Scores:
    """Measure an image set; progress goes to stderr.

    Args:
        features: of its images, on the CPU.
        reference: what it is measured against.
        settings: split size, neighbours, replicates.
        source: name of the set, for progress.
        device: where pairs of images are compared and replicates are measured; the CPU if None.

    Raises:
        BenchError: sets that are too small or do not fit each other, or values that are not finite.
    """
    scores = Scores()
    draws = draw_images(len(features.pool), settings.replicates)
    _frechet(scores, features, reference, draws, source, device)
    _class_scores(scores, features.logits, draws, settings, device)
    if reference.points is not None:
        sets = features.pool.to(device), reference.points.to(device)
        _overlap(scores, *sets, draws, settings, source)
    order = ("fid", "sfid", "is", "is_shuffled", "kid", "precision", "recall", "clean_fid")
    scores.values = {key: scores.values[key] for key in order if key in scores.values}
    return scores


def _frechet(
    scores: Scores,
    features: Features,
    reference: ReferenceSide,
    draws: Tensor,
    source: str,
    device: torch.device | None,
) -> None:
    parts = (
        ("fid", features.pool, reference.pool),
        ("sfid", features.spatial, reference.spatial),
        ("clean_fid", features.clean, reference.clean),
    )
    targets: list[tuple[str, Tensor, FrechetTarget]] = []
    for key, points, gaussian in parts:
        if points is None or gaussian is None:
            continue
        if points.shape[1] != len(gaussian.mean):
            raise BenchError(
                f"features of {points.shape[1]} and {len(gaussian.mean)} dimensions cannot be "
                "compared; extract both with the same extractor"
            )
        target = FrechetTarget(gaussian)
        scores.values[key] = target.distance(streaming_moments([points]).gaussian)
        scores.bias[key] = frechet_bias(target, len(points))
        targets.append((key, points, target))
    if not len(draws):
        return
    with Progress(f"bootstrap of {source}", len(draws) * len(targets)) as progress:
        advance = _counter(progress)
        for key, points, target in targets:
            scores.replicates[key] = frechet_replicates(
                points.to(device), draws.to(device), target.to(device), advance
            )


def _counter(progress: Progress) -> Callable[[], None]:
    """A function that counts its calls on a progress bar."""
    calls = itertools.count(1)
    return lambda: progress.update(next(calls))


def _class_scores(
    scores: Scores,
    logits: Tensor,
    draws: Tensor,
    settings: ScoreSettings,
    device: torch.device | None,
) -> None:
    for key, order in ORDERS.items():
        scores.values[key] = inception_score(logits, settings.split_size, order)
    if not len(draws):
        return
    drawn = draws.to(device)
    for key, order in ORDERS.items():
        scores.replicates[key] = inception_score_replicates(
            logits.to(device), drawn, settings.split_size, order
        )


def _overlap(
    scores: Scores,
    generated: Tensor,
    reference: Tensor,
    draws: Tensor,
    settings: ScoreSettings,
    source: str,
) -> None:
    """Precision, recall and kernel distance; column 0 of the weights counts each image once."""
    draws = draws.to(generated.device)
    once = torch.ones(1, len(generated), dtype=torch.float64, device=generated.device)
    weights = torch.cat([once, counts_of(draws)]).T
    blocks = block_count(len(generated), len(reference))
    with Progress(f"distances of {source}", blocks) as progress:
        found = measure_overlap(
            generated,
            reference,
            settings.k,
            settings.kernel,
            weights,
            progress=_counter(progress),
        )
    if found.kernel is not None:
        scores.values["kid"] = float(found.kernel[0])
    scores.values["precision"] = float(found.in_reference.double().mean())
    scores.values["recall"] = float(found.in_generated.double().mean())
    if not len(draws):
        return
    if found.kernel is not None:
        scores.replicates["kid"] = found.kernel[1:].cpu()
    scores.replicates["precision"] = share_replicates(found.in_reference, draws).cpu()
    others = draw_images(len(reference), len(draws), "reference").to(generated.device)
    scores.replicates["recall"] = share_replicates(found.in_generated, others).cpu()
