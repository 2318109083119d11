"""Reference side of the metrics: what is kept of the real images."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.evaluate.feature_types import Extractor, Features
from hqdm_bench.evaluate.features import feature_stream
from hqdm_bench.evaluate.moments import Gaussian, RunningMoments

__all__ = [
    "MomentsOfFeatures",
    "Reference",
    "read_reference",
    "reference_from_images",
    "write_reference",
]

GAUSSIANS, OPTIONAL = ("pool", "spatial"), "clean"
HEADER = ("name", "images", "extractor", "extractor_sha256", "source_sha256")


@dataclass(frozen=True)
class Reference:
    """What image sets are measured against; its size does not grow with the number of images.

    Attributes:
        name: of the reference set, as protocols call it.
        images: real images behind the moments; None for a published batch, which does not say.
        pool: of the pooled features, for the Frechet distance.
        spatial: of the spatial features in the order H, W, C, for the spatial Frechet distance.
        pr_pool: (m, d) float32 pooled features of the images for precision and recall.
        extractor: name of the extractor.
        extractor_sha256: digest of its weights.
        source_sha256: digest of the published batch, else of all pixel bytes in order.
        clean: of the pooled features of the images resized as clean-fid does; None where no
            protocol asks for it. Of a published batch, of the images for precision and recall.
    """

    name: str
    images: int | None
    pool: Gaussian
    spatial: Gaussian
    pr_pool: Tensor
    extractor: str
    extractor_sha256: str
    source_sha256: str
    clean: Gaussian | None = None


def reference_from_images(
    batches: Iterable[Tensor],
    protocol: Protocol,
    extractor: Extractor,
    chosen: Tensor | None = None,
) -> Reference:
    """Reference made of real images; holds one batch of them at a time.

    Args:
        batches: (n, H, W, 3) uint8 images.
        protocol: name and number of the images.
        extractor: the network.
        chosen: (``protocol.pr_reference_images``,) ascending numbers of the images for precision
            and recall. The first ones if None, whose order must then not be by class.

    Raises:
        BenchError: the stream holds another number of images than the protocol says, or the
            protocol wants more for precision and recall than there are.
    """
    images, wanted = protocol.reference_images, protocol.pr_reference_images
    if images is None:
        raise BenchError(
            f"protocol '{protocol.name}' does not say how many images reference "
            f"'{protocol.reference}' is made of; set reference_images in config/protocols.yaml"
        )
    if not 0 < wanted <= images:
        raise BenchError(
            f"protocol '{protocol.name}': pr_reference_images is {wanted}; choose 1 to {images}, "
            "the number of reference images"
        )
    chosen = torch.arange(wanted) if chosen is None else chosen
    moments, pixels = MomentsOfFeatures(), hashlib.sha256()
    kept: list[Tensor] = []
    done = 0
    for features in feature_stream(
        batches, extractor, protocol.reference, images, pixels, protocol.clean_fid
    ):
        moments.update(features)
        first, last = torch.searchsorted(chosen, torch.tensor([done, done + len(features.pool)]))
        kept.append(features.pool[chosen[first:last] - done])
        done += len(features.pool)
    return Reference(
        protocol.reference,
        images,
        moments.pool.result().gaussian,
        moments.spatial.result().gaussian,
        torch.cat(kept),
        extractor.name,
        extractor.sha256,
        pixels.hexdigest(),
        moments.clean_gaussian,
    )


class MomentsOfFeatures:
    """Moments of a stream of features, of each kind that comes."""

    def __init__(self) -> None:
        self.pool, self.spatial, self._clean = (RunningMoments() for _ in range(3))
        self._has_clean = False

    def update(self, features: Features) -> None:
        """Take the features of further images into account."""
        self.pool.update(features.pool)
        self.spatial.update(features.spatial)
        if features.clean is not None:
            self._clean.update(features.clean)
            self._has_clean = True

    @property
    def clean_gaussian(self) -> Gaussian | None:
        """Of the features that clean-fid would see, if there were any."""
        return self._clean.result().gaussian if self._has_clean else None


def write_reference(path: Path, reference: Reference) -> None:
    """Write as safetensors, atomically; everything that is not a tensor goes to the header."""
    tensors = {"pr_pool": reference.pr_pool}
    for name in (*GAUSSIANS, OPTIONAL):
        part: Gaussian | None = getattr(reference, name)
        if part is not None:
            tensors |= {f"{name}_mean": part.mean, f"{name}_covariance": part.covariance}
    write_tensors(path, tensors, {name: getattr(reference, name) for name in HEADER})


def read_reference(path: Path) -> Reference:
    """Read a reference.

    Raises:
        BenchError: the file is missing, damaged, or holds something else.
    """
    tensors, header = read_tensors(path)
    try:
        pool, spatial = (
            Gaussian(tensors[f"{name}_mean"], tensors[f"{name}_covariance"]) for name in GAUSSIANS
        )
        values: dict[str, Any] = {name: header[name] for name in HEADER}
        if f"{OPTIONAL}_mean" in tensors:
            values[OPTIONAL] = Gaussian(
                tensors[f"{OPTIONAL}_mean"], tensors[f"{OPTIONAL}_covariance"]
            )
        return Reference(pool=pool, spatial=spatial, pr_pool=tensors["pr_pool"], **values)
    except KeyError as error:
        raise BenchError(
            f"{path} holds no reference (no {error}); delete it and run again"
        ) from None
