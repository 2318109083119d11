"""Shards: files that hold whole batches of images, so their number does not change the images."""

import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import atomic_path, require_file
from hqdm_bench.common.progress import Progress
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.sample.ddim import Trace, ddim_sample
from hqdm_bench.sample.labels import image_labels
from hqdm_bench.sample.pixels import to_uint8

__all__ = [
    "Samples",
    "draw_shard",
    "iterate_shards",
    "read_shard",
    "sample_shard",
    "shard_batches",
    "write_shard",
]

# Attributes of `Samples` and their keys in a file; the first two are those of ADM's sampler.
KEYS = {
    "images": "arr_0",
    "labels": "arr_1",
    "index": "index",
    "latents": "latents",
    "trace": "trace",
}
REQUIRED = [key for key in KEYS.values() if key != "trace"]


@dataclass(frozen=True)
class Samples:
    """Images of one shard.

    Attributes:
        images: (n, H, W, 3) uint8.
        labels: (n,) int64, -1 for unconditional models.
        index: (n,) int64 image numbers, consecutive.
        latents: (n, C, h, w) float32 latents before the first stage decoded them.
        trace: (m, S, C, h, w) float32 latents of the first m images after each of the S sampling
            steps, in the order of sampling; None where nothing was recorded.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    latents: NDArray[np.float32]
    trace: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.images)


def shard_batches(protocol: Protocol, shard: int) -> list[range]:
    """Image numbers of each batch of a shard.

    Batches are cut once for the whole set (the last one may be short) and dealt to shards in order,
    as evenly as they go, so every image meets the same batch mates whatever the number of shards.

    Raises:
        BenchError: no such shard.
    """
    if not 0 <= shard < protocol.shards:
        raise BenchError(
            f"shard {shard} does not exist; protocol '{protocol.name}' has shards 0 to "
            f"{protocol.shards - 1}"
        )
    starts = range(0, protocol.images, protocol.batch)
    first = shard * len(starts) // protocol.shards
    end = (shard + 1) * len(starts) // protocol.shards
    return [
        range(start, min(start + protocol.batch, protocol.images)) for start in starts[first:end]
    ]


@torch.no_grad()
def draw_shard(
    model: LatentDiffusion, protocol: Protocol, shard: int, progress: Progress | None = None
) -> Samples:
    """Draw the images of one shard.

    Args:
        model: teacher, or a student in its place.
        protocol: how images are drawn.
        shard: 0 to ``protocol.shards`` - 1.
        progress: told the number of finished images and the images per second.

    Raises:
        BenchError: no such shard, a label policy that does not fit the model, or a diverged model.
    """
    batches = shard_batches(protocol, shard)
    images, latents, traces = [], [], []
    start, done = time.monotonic(), 0
    for batch in batches:
        trace = Trace(len(range(batch.start, min(batch.stop, protocol.trace_images))))
        z = ddim_sample(model, protocol, batch, trace)
        traces += trace.result()
        images.append(to_uint8(model.decode(z), protocol.rounding).cpu().numpy())
        latents.append(z.float().cpu().numpy())
        done += len(batch)
        if progress:
            progress.update(done, images_per_second=done / (time.monotonic() - start))
    index = np.arange(batches[0].start, batches[-1].stop, dtype=np.int64)
    labels = image_labels(protocol, model.null_label).numpy()[index]
    recorded = np.concatenate(traces) if traces else None
    return Samples(np.concatenate(images), labels, index, np.concatenate(latents), recorded)


def sample_shard(model: LatentDiffusion, protocol: Protocol, shard: int, path: Path) -> Samples:
    """Draw the images of one shard and write them; progress goes to stderr.

    Raises:
        BenchError: see `draw_shard`; or the file cannot be written.
    """
    total = sum(len(batch) for batch in shard_batches(protocol, shard))
    with Progress(f"sample shard {shard}", total) as progress:
        samples = draw_shard(model, protocol, shard, progress)
    write_shard(path, samples)
    return samples


def write_shard(path: Path, samples: Samples) -> None:
    """Write a shard atomically as ``.npz``: arr_0 (images), arr_1 (labels), index, latents, trace.

    Uncompressed, under the key names of ADM's sampler and evaluator, and without a key ``mu``, so a
    shard can be handed to that evaluator as it is. There is no trace where none was recorded.
    """
    arrays: dict[str, Any] = {
        key: getattr(samples, name)
        for name, key in KEYS.items()
        if getattr(samples, name) is not None
    }
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def read_shard(path: Path) -> Samples:
    """Read a shard and check that it is whole.

    Raises:
        BenchError: the file is missing, damaged, of another layout, or its images are not
            consecutive.
    """
    require_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            held = set(file.files) | set(REQUIRED)  # one that lacks is asked for, and named
            samples = Samples(**{name: file[key] for name, key in KEYS.items() if key in held})
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise _damaged(path, str(error)) from error
    except KeyError as error:
        raise _damaged(path, str(error.args[0])) from None
    _check(path, samples)
    return samples


def _damaged(path: Path, why: str) -> BenchError:
    return BenchError(f"{path} is not a whole sample shard ({why}); delete it and run again")


def _check(path: Path, samples: Samples) -> None:
    expected: dict[str, tuple[Any, int]] = {
        "images": (np.uint8, 4),
        "labels": (np.int64, 1),
        "index": (np.int64, 1),
        "latents": (np.float32, 4),
    }
    for name, (dtype, dimensions) in expected.items():
        array = getattr(samples, name)
        if array.dtype != dtype or array.ndim != dimensions:
            raise _damaged(path, f"{name} is {array.dtype} of {array.ndim} dimensions")
        if len(array) != len(samples) or not len(array):
            raise _damaged(path, f"{len(array)} {name} for {len(samples)} images")
    _check_trace(path, samples)
    if (np.diff(samples.index) != 1).any():
        raise _damaged(path, "image numbers are not consecutive")


def _check_trace(path: Path, samples: Samples) -> None:
    trace = samples.trace
    if trace is None:
        return
    fits = trace.ndim == 5 and trace.shape[2:] == samples.latents.shape[1:]
    if trace.dtype != np.float32 or not fits or len(trace) > len(samples):
        raise _damaged(path, f"trace is {trace.dtype} of shape {trace.shape}")


def iterate_shards(paths: Sequence[Path]) -> Iterator[Samples]:
    """Read the shards of an image set one after the other.

    Raises:
        BenchError: a shard is damaged, or the set does not run from image 0 without gaps.
    """
    following = 0
    for path in paths:
        samples = read_shard(path)
        if samples.index[0] != following:
            raise BenchError(
                f"{path} starts with image {samples.index[0]}, expected {following}; the shards "
                "are of different protocols or out of order, draw them again"
            )
        following = int(samples.index[-1]) + 1
        yield samples
        del samples  # or two shards, gigabytes at paper scale, would be held while one is read
