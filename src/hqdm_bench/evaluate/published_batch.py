"""Published reference batches of the ADM evaluator: an .npz with images and their moments.

Used keys: ``arr_0`` (n, H, W, 3) uint8 images; ``mu``, ``sigma`` moments of the pooled features;
``mu_s``, ``sigma_s`` of the spatial ones, in the order H, W, C. Types of the moments differ from
file to file. Other keys are ignored.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import require_file
from hqdm_bench.evaluate.feature_types import Extractor
from hqdm_bench.evaluate.features import feature_stream
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.moments import Gaussian, RunningMoments
from hqdm_bench.evaluate.reference import Reference

__all__ = ["Agreement", "reference_from_batch", "stream_images"]

IMAGES = "arr_0"
KEYS = (IMAGES, "mu", "sigma", "mu_s", "sigma_s")
SYMMETRY = 1e-6  # largest difference of a covariance from its transpose, relative to its entries


class Agreement(NamedTuple):
    """Frechet distances between a batch's own images and the moments stored with them.

    They are the sampling error of the images, a few units for 10 000 of them, if features are
    extracted as the publisher did; a spatial part in another order makes ``sfid`` hundreds.
    """

    fid: float
    sfid: float


def reference_from_batch(
    path: Path, sha256: str, protocol: Protocol, extractor: Extractor, resolution: int
) -> tuple[Reference, Agreement]:
    """Reference with the moments of a published batch.

    The first ``protocol.pr_reference_images`` images go through our extractor for precision and
    recall, one batch in memory at a time.

    Args:
        path: the ``.npz``.
        sha256: its digest.
        protocol: name of the reference and number of images for precision and recall.
        extractor: the network the moments were made with.
        resolution: side of the images the model draws.

    Raises:
        BenchError: a missing or damaged file, missing keys, moments of other dimensions than the
            extractor's features or that are none, images of another size, or too few of them.
    """
    wanted = protocol.pr_reference_images
    count, size = _image_shape(path)
    if size != (resolution, resolution, 3):
        raise BenchError(
            f"{path}: {IMAGES} holds images of shape {size}, the model draws "
            f"{resolution} x {resolution} x 3"
        )
    if count < wanted:
        raise BenchError(
            f"{path} holds {count} images, protocol '{protocol.name}' asks for {wanted} for "
            "precision and recall"
        )
    probe = extractor(torch.zeros(1, *size, dtype=torch.uint8))
    stored = _moments(path, "mu", "sigma", probe.pool.shape[1])
    stored_spatial = _moments(path, "mu_s", "sigma_s", probe.spatial.shape[1])
    pool, spatial = RunningMoments(), RunningMoments()
    kept: list[Tensor] = []
    batches = stream_images(path, wanted, protocol.batch)
    for features in feature_stream(batches, extractor, path.name, wanted, hashlib.sha256()):
        pool.update(features.pool)
        spatial.update(features.spatial)
        kept.append(features.pool)
    agreement = Agreement(
        frechet_distance(pool.result(), stored),
        frechet_distance(spatial.result(), stored_spatial),
    )
    reference = Reference(
        protocol.reference,
        None,
        stored,
        stored_spatial,
        torch.cat(kept),
        extractor.name,
        extractor.sha256,
        sha256,
    )
    return reference, agreement


def stream_images(path: Path, count: int, batch: int) -> Iterator[Tensor]:
    """The first images of a batch as (n, H, W, 3) uint8 tensors.

    Read through the archive: `numpy.load` would bring the whole array, 2 GB, into memory.

    Raises:
        BenchError: the file is missing or damaged.
    """
    with _reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as file:
        shape = _header(path, file)
        row = int(np.prod(shape[1:]))
        for start in range(0, count, batch):
            rows = min(batch, count - start)
            data = file.read(rows * row)
            if len(data) != rows * row:
                raise _damaged(path, f"{IMAGES} ends after {start + len(data) // row} images")
            yield torch.frombuffer(bytearray(data), dtype=torch.uint8).view(rows, *shape[1:])


def _image_shape(path: Path) -> tuple[int, tuple[int, ...]]:
    require_file(path)
    with _reading(path), zipfile.ZipFile(path) as archive:
        held = set(archive.namelist())
        missing = [key for key in KEYS if f"{key}.npy" not in held]
        if missing:
            raise BenchError(
                f"{path} is no reference batch of the ADM evaluator: it has no {', '.join(missing)}"
            )
        with archive.open(f"{IMAGES}.npy") as file:
            shape = _header(path, file)
    return shape[0], shape[1:]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged archive leads to into one message."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> BenchError:
    return BenchError(
        f"{path} is not a whole reference batch ({why}); delete it and fetch it again"
    )


def _header(path: Path, file: IO[bytes]) -> tuple[int, ...]:
    """Shape of the images; leaves the file at their first byte."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, column_major, dtype = read(file)
    if dtype != np.uint8 or len(shape) != 4 or column_major:
        order = "column" if column_major else "row"
        raise BenchError(
            f"{path}: {IMAGES} is {dtype} of shape {shape}, {order}-major; expected uint8 "
            "(n, H, W, 3), row-major"
        )
    return tuple(shape)


def _moments(path: Path, mean_key: str, covariance_key: str, dimensions: int) -> Gaussian:
    shapes = {mean_key: (dimensions,), covariance_key: (dimensions, dimensions)}
    found: list[Tensor] = []
    with _reading(path), np.load(path, allow_pickle=False) as arrays:
        for key, shape in shapes.items():
            array: Any = arrays[key]
            if array.shape != shape or array.dtype.kind != "f":
                raise BenchError(
                    f"{path}: {key} is {array.dtype} of shape {array.shape}; features of this "
                    f"extractor need floats of shape {shape}"
                )
            if not np.isfinite(array).all():
                raise BenchError(f"{path}: {key} holds values that are not finite")
            found.append(torch.from_numpy(array.astype(np.float64)))
    mean, covariance = found
    if (covariance - covariance.T).abs().max() > SYMMETRY * covariance.abs().max():
        raise BenchError(f"{path}: {covariance_key} is not symmetric, so it is no covariance")
    return Gaussian(mean, covariance)
