"""Features on disk: extracted in one pass, stored once, read by every metric."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.progress import Progress
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.evaluate.clean_fid import clean_pool
from hqdm_bench.evaluate.feature_types import Extractor, Features
from hqdm_bench.sample import iterate_shards

__all__ = [
    "FeatureSet",
    "extract",
    "feature_stream",
    "read_features",
    "sample_features",
    "write_features",
]

ARRAYS = ("pool", "spatial", "logits", "index")


@dataclass(frozen=True)
class FeatureSet:
    """Features of a whole image set, in the order of image numbers.

    Attributes:
        pool: (n, d) float32.
        spatial: (n, s) float32.
        logits: (n, c) float32.
        index: (n,) int64 image numbers.
        source: what was measured: the reference's name, or the folder-like name of a cell.
        extractor: name of the extractor.
        extractor_sha256: digest of its weights.
        images_sha256: digest of all pixel bytes in order; does not depend on the shards.
        clean: (n, d) float32, see `Features`; None where it was not asked for.
    """

    pool: Tensor
    spatial: Tensor
    logits: Tensor
    index: Tensor
    source: str
    extractor: str
    extractor_sha256: str
    images_sha256: str
    clean: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def features(self) -> Features:
        """The features alone."""
        return Features(self.pool, self.spatial, self.logits, self.clean)


def feature_stream(
    batches: Iterable[Tensor],
    extractor: Extractor,
    source: str,
    images: int,
    pixels: "hashlib._Hash",
    clean: bool = False,
) -> Iterator[Features]:
    """Features of a stream of images, batch by batch; progress goes to stderr.

    Args:
        batches: (n, H, W, 3) uint8 tensors in the order of image numbers.
        extractor: the network.
        source: see `FeatureSet`.
        images: how many images the stream must hold.
        pixels: is fed all pixel bytes in order.
        clean: whether to add features of images resized as clean-fid does.

    Raises:
        BenchError: the stream holds another number of images, or something else than bytes.
    """
    done = 0
    with Progress(f"features of {source}", images) as progress:
        for batch in batches:
            if batch.dtype != torch.uint8 or batch.dim() != 4:
                raise BenchError(
                    f"images of {source} are {batch.dtype} {tuple(batch.shape)}; features are "
                    "extracted from uint8 (n, H, W, 3)"
                )
            done += len(batch)
            if done > images:
                raise BenchError(f"{source} holds more than {images} images; make it again")
            pixels.update(batch.contiguous().numpy().data)
            features = extractor(batch)
            yield features._replace(clean=clean_pool(extractor, batch)) if clean else features
            progress.update(done)
    if done != images:
        raise BenchError(f"{source} holds {done} images, expected {images}; make it again")


def extract(
    batches: Iterable[Tensor],
    extractor: Extractor,
    source: str,
    images: int,
    clean: bool = False,
) -> FeatureSet:
    """Extract and keep the features of a stream of images: 1.0 GB for 50 000 of Inception.

    Args:
        batches: (n, H, W, 3) uint8 tensors in the order of image numbers.
        extractor: the network.
        source: see `FeatureSet`.
        images: how many images the stream must hold.
        clean: see `feature_stream`.

    Raises:
        BenchError: the stream holds another number of images, or something else than bytes.
    """
    pixels = hashlib.sha256()
    # Filled in place: joining parts at the end would hold everything twice.
    kept: dict[str, Tensor] = {}
    done = 0
    for features in feature_stream(batches, extractor, source, images, pixels, clean):
        for name, part in features._asdict().items():
            if part is None:
                continue
            if name not in kept:
                kept[name] = torch.empty(images, part.shape[1])
            kept[name][done : done + len(part)] = part
        done += len(features.pool)
    return FeatureSet(
        index=torch.arange(images),
        source=source,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        images_sha256=pixels.hexdigest(),
        **kept,
    )


def sample_features(
    paths: Sequence[Path], protocol: Protocol, extractor: Extractor, source: str
) -> FeatureSet:
    """Extract the features of a cell's images.

    Args:
        paths: its shards in order.
        protocol: how they were drawn; images are taken in its batches, which shards never split, so
            the features do not depend on the number of shards.
        extractor: the network.
        source: name of the cell.

    Raises:
        BenchError: a shard is missing or damaged, or the set is not complete.
    """
    batches = _batches(paths, protocol.batch)
    return extract(batches, extractor, source, protocol.images, protocol.clean_fid)


def _batches(paths: Sequence[Path], size: int) -> Iterator[Tensor]:
    for samples in iterate_shards(paths):
        images = torch.from_numpy(samples.images)
        del samples  # its latents and traces need not wait in memory
        yield from images.split(size)


def write_features(path: Path, features: FeatureSet) -> None:
    """Write features as safetensors; source and digests go to the header."""
    header = {
        "source": features.source,
        "extractor": features.extractor,
        "extractor_sha256": features.extractor_sha256,
        "images_sha256": features.images_sha256,
    }
    tensors = {name: getattr(features, name) for name in ARRAYS}
    if features.clean is not None:
        tensors["clean"] = features.clean
    write_tensors(path, tensors, header)


def read_features(path: Path) -> FeatureSet:
    """Read features.

    Raises:
        BenchError: the file is missing, damaged, or holds something else.
    """
    tensors, header = read_tensors(path)
    try:
        values: dict[str, Any] = {**{name: tensors[name] for name in ARRAYS}, **header}
        values["clean"] = tensors.get("clean")
        features = FeatureSet(**values)
    except (KeyError, TypeError) as error:
        raise BenchError(f"{path} holds no features ({error}); delete it and run again") from None
    if not torch.equal(features.index, torch.arange(len(features))):
        raise BenchError(f"{path}: image numbers have gaps; delete it and run again")
    return features
