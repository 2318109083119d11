"""Scoring anybody's image archive against anybody's, as the ADM evaluator does."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.feature_types import Extractor
from hqdm_bench.evaluate.features import FeatureSet, extract, feature_stream
from hqdm_bench.evaluate.frechet_bias import Extrapolation, fid_infinity
from hqdm_bench.evaluate.intervals import interval_at_count
from hqdm_bench.evaluate.moments import Gaussian
from hqdm_bench.evaluate.published_batch import stored_gaussian
from hqdm_bench.evaluate.reference import MomentsOfFeatures
from hqdm_bench.evaluate.scores import ReferenceSide, Scores, ScoreSettings, score_images
from hqdm_bench.sample import ImageArchive

__all__ = ["ArchiveScore", "grouped_by_class", "score_archive"]

USUAL_IMAGES = 50_000


@dataclass(frozen=True)
class ArchiveScore:
    """What scoring one archive against another gave.

    Attributes:
        generated: features of the scored images and where they came from.
        reference: name of the reference archive.
        reference_images: images behind its precision, recall, kernel distance, and behind moments
            that were not stored; 0 if it holds none.
        stored: metrics whose reference moments were stored in the archive.
        scores: values, biases and replicates.
        extrapolation: of the pooled Frechet distance, if it was asked for.
        warnings: what a reader must know.
    """

    generated: FeatureSet
    reference: str
    reference_images: int
    stored: tuple[str, ...]
    settings: ScoreSettings
    scores: Scores
    extrapolation: Extrapolation | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals over images, at their number, of the metrics that have replicates."""
        values, replicates = self.scores.values, self.scores.replicates
        return {
            key: interval_at_count(values[key], replicates[key].numpy())
            for key in values
            if key in replicates
        }

    def asdict(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        fitted = None
        if self.extrapolation is not None:
            fitted = {key: value for key, value in self.extrapolation._asdict().items()}
        return {
            "generated": {
                "name": self.generated.source,
                "images": len(self.generated),
                "images_sha256": self.generated.images_sha256,
            },
            "reference": {
                "name": self.reference,
                "images": self.reference_images,
                "stored_moments": list(self.stored),
            },
            "extractor": {
                "name": self.generated.extractor,
                "sha256": self.generated.extractor_sha256,
            },
            "split_size": self.settings.split_size,
            "k": self.settings.k,
            "replicates": self.settings.replicates,
            "values": self.scores.values,
            "standard_errors": self.scores.standard_errors,
            "intervals": {key: list(ends) for key, ends in self.intervals.items()},
            "bias": self.scores.bias,
            "fid_infinity": fitted,
            "warnings": self.warnings,
        }


def score_archive(
    generated: ImageArchive,
    reference: ImageArchive,
    extractor: Extractor,
    settings: ScoreSettings,
    batch: int = 64,
    infinity: bool = False,
    clean: bool = False,
    device: torch.device | None = None,
) -> ArchiveScore:
    """Score an archive; images pass one batch at a time.

    Moments stored in the reference (``mu``, ``sigma``; ``mu_s``, ``sigma_s`` in the order H, W, C)
    are used as they are, others are those of its images. Moments stored with generated images are
    not used. Without images in the reference there is no precision, recall or kernel distance.

    Args:
        generated: what is scored.
        reference: what it is scored against.
        extractor: the network.
        settings: split size, neighbours, replicates.
        batch: images at a time.
        infinity: whether to extrapolate the pooled Frechet distance to infinitely many images.
        clean: whether to add the Frechet distance of images resized as clean-fid does.
        device: see `score_images`.

    Raises:
        BenchError: a damaged file, no images to score or one, or nothing to score them against.
    """
    if not len(generated):
        raise BenchError(f"{generated.path} holds no images under arr_0; there is nothing to score")
    for archive in (generated, reference):
        if len(archive) == 1:
            raise BenchError(f"{archive.path} holds one image; a covariance needs at least two")
    labels = generated.labels()
    side, stored = _reference_side(reference, extractor, batch, clean)
    name = generated.path.name
    features = extract(generated.images(batch), extractor, name, len(generated), clean)
    extrapolation = None
    if infinity and side.pool is not None:
        extrapolation = fid_infinity(features.pool, side.pool)
    return ArchiveScore(
        features,
        reference.path.name,
        len(reference),
        stored,
        settings,
        score_images(features.features, side, settings, name, device),
        extrapolation,
        list(_warnings(generated, reference, labels, settings)),
    )


def _reference_side(
    archive: ImageArchive, extractor: Extractor, batch: int, clean: bool
) -> tuple[ReferenceSide, tuple[str, ...]]:
    """What an archive gives, and for which metrics its moments were stored."""
    points: Tensor | None = None
    moments = MomentsOfFeatures()
    if len(archive):
        kept = []
        stream = archive.images(batch)
        for features in feature_stream(
            stream, extractor, archive.path.name, len(archive), hashlib.sha256(), clean
        ):
            moments.update(features)
            kept.append(features.pool)
        points = torch.cat(kept)
    sides: dict[str, Gaussian | None] = {}
    stored = []
    probe = extractor(torch.zeros(1, *_size(archive), dtype=torch.uint8))
    for key, suffix, running, width in (
        ("fid", "", moments.pool, probe.pool.shape[1]),
        ("sfid", "_s", moments.spatial, probe.spatial.shape[1]),
    ):
        if {f"mu{suffix}", f"sigma{suffix}"} <= archive.keys:
            sides[key] = stored_gaussian(archive, f"mu{suffix}", f"sigma{suffix}", width)
            stored.append(key)
        else:
            sides[key] = running.result().gaussian if len(archive) else None
    if not any(sides.values()):
        raise BenchError(
            f"{archive.path} holds neither images (arr_0) nor moments (mu, sigma); it is no "
            "reference"
        )
    side = ReferenceSide(sides["fid"], sides["sfid"], points, moments.clean_gaussian)
    return side, tuple(stored)


def _size(archive: ImageArchive) -> tuple[int, ...]:
    """Size of an image to ask for the widths of features."""
    return archive.shape[1:] if archive.shape else (64, 64, 3)


def grouped_by_class(labels: NDArray[np.int64]) -> bool:
    """Whether all images of a class follow each other, of two classes or more."""
    changes = int((np.diff(labels) != 0).sum())
    return changes > 0 and changes == len(np.unique(labels)) - 1


def _warnings(
    generated: ImageArchive,
    reference: ImageArchive,
    labels: NDArray[np.int64] | None,
    settings: ScoreSettings,
) -> Iterator[str]:
    count = len(generated)
    if generated.shape and reference.shape and generated.shape[1:] != reference.shape[1:]:
        (height, width, _), (other, wide, _) = generated.shape[1:], reference.shape[1:]
        yield (
            f"generated images are {height} x {width}, those of the reference {other} x {wide}: "
            "distances also hold what the difference in size does to features"
        )
    if count < USUAL_IMAGES:
        yield (
            f"{count} images: a Frechet distance of {count} images is another quantity than one of "
            f"{USUAL_IMAGES}, and a score over splits of {min(count, settings.split_size)} than "
            "one over splits of 5000; compare only at equal counts"
        )
    if labels is not None and settings.split_size < count and grouped_by_class(labels):
        yield (
            "images are sorted by class (arr_1), so a split holds few classes and IS in file order "
            "collapses; compare IS of shuffled images"
        )
    if "mu" in generated.keys:
        yield (
            f"{generated.path.name} holds moments (mu), which the ADM evaluator would take instead "
            "of those of its images; here the images are scored"
        )
    if count % settings.split_size and count > settings.split_size:
        yield (
            f"the last split of IS holds {count % settings.split_size} images and counts like the "
            f"others, which hold {settings.split_size}"
        )
