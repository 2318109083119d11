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
from hqdm_bench.evaluate.extractors import Extractor, Features
from hqdm_bench.sample import iterate_shards

__all__ = ["FeatureSet", "extract", "read_features", "sample_features", "write_features"]

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
    """

    pool: Tensor
    spatial: Tensor
    logits: Tensor
    index: Tensor
    source: str
    extractor: str
    extractor_sha256: str
    images_sha256: str

    def __len__(self) -> int:
        return len(self.pool)


def extract(
    batches: Iterable[Tensor], extractor: Extractor, source: str, images: int
) -> FeatureSet:
    """Extract the features of a stream of images; progress goes to stderr.

    Args:
        batches: (n, H, W, 3) uint8 tensors in the order of image numbers.
        extractor: the network.
        source: see `FeatureSet`.
        images: how many images the stream must hold.

    Raises:
        BenchError: the stream holds another number of images, or something else than bytes.
    """
    parts: list[Features] = []
    pixels = hashlib.sha256()
    done = 0
    with Progress(f"features of {source}", images) as progress:
        for batch in batches:
            if batch.dtype != torch.uint8 or batch.dim() != 4:
                raise BenchError(
                    f"images of {source} are {batch.dtype} {tuple(batch.shape)}; features are "
                    "extracted from uint8 (n, H, W, 3)"
                )
            pixels.update(batch.contiguous().numpy().tobytes())
            parts.append(extractor(batch))
            done += len(batch)
            progress.update(done)
    if done != images:
        raise BenchError(f"{source} holds {done} images, expected {images}; make it again")
    pool, spatial, logits = (torch.cat(part) for part in zip(*parts, strict=True))
    return FeatureSet(
        pool,
        spatial,
        logits,
        torch.arange(done),
        source,
        extractor.name,
        extractor.sha256,
        pixels.hexdigest(),
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
    return extract(_batches(paths, protocol.batch), extractor, source, protocol.images)


def _batches(paths: Sequence[Path], size: int) -> Iterator[Tensor]:
    for samples in iterate_shards(paths):
        yield from torch.from_numpy(samples.images).split(size)


def write_features(path: Path, features: FeatureSet) -> None:
    """Write features as safetensors; source and digests go to the header."""
    header = {
        "source": features.source,
        "extractor": features.extractor,
        "extractor_sha256": features.extractor_sha256,
        "images_sha256": features.images_sha256,
    }
    write_tensors(path, {name: getattr(features, name) for name in ARRAYS}, header)


def read_features(path: Path) -> FeatureSet:
    """Read features.

    Raises:
        BenchError: the file is missing, damaged, or holds something else.
    """
    tensors, header = read_tensors(path)
    try:
        values: dict[str, Any] = {**{name: tensors[name] for name in ARRAYS}, **header}
        features = FeatureSet(**values)
    except (KeyError, TypeError) as error:
        raise BenchError(f"{path} holds no features ({error}); delete it and run again") from None
    if not torch.equal(features.index, torch.arange(len(features))):
        raise BenchError(f"{path}: image numbers have gaps; delete it and run again")
    return features
