"""Image archives in the format of the ADM evaluator, read and written without holding the images.

An ``.npz`` with ``arr_0`` (n, H, W, 3) uint8 images and, for class-conditional models, ``arr_1``
(n,) int64 labels. A reference archive may also hold moments (``mu``, ``sigma``, ``mu_s``,
``sigma_s``), which the evaluator then takes instead of computing them; a sample archive must not.
`numpy.load` would bring a whole array, 10 GB for 50 000 images, into memory.
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import atomic_path
from hqdm_bench.sample.labels import NO_LABEL
from hqdm_bench.sample.shards import iterate_shards

__all__ = ["ImageArchive", "export_shards", "open_archive"]

IMAGES, LABELS = "arr_0", "arr_1"
LONGEST = 160  # characters of a reader's own complaint; numpy's holds the whole header


@dataclass(frozen=True)
class ImageArchive:
    """An archive whose table of contents has been read and found in order.

    Attributes:
        path: of the file.
        keys: names of its arrays.
        shape: (n, H, W, 3) of its images; None if it holds none.
    """

    path: Path
    keys: frozenset[str]
    shape: tuple[int, int, int, int] | None

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def images(self, batch: int, count: int | None = None) -> Iterator[Tensor]:
        """Its first images as (b, H, W, 3) uint8 tensors, read through the archive.

        Args:
            batch: images at a time.
            count: how many; None takes all.

        Raises:
            BenchError: the file is damaged.
        """
        count = len(self) if count is None else count
        with (
            _reading(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open(f"{IMAGES}.npy") as file,
        ):
            shape = _image_shape(self.path, file)
            row = int(np.prod(shape[1:]))
            for start in range(0, count, batch):
                rows = min(batch, count - start)
                data = file.read(rows * row)
                if len(data) != rows * row:
                    raise _damaged(
                        self.path, f"{IMAGES} ends after {start + len(data) // row} images"
                    )
                yield torch.frombuffer(bytearray(data), dtype=torch.uint8).view(rows, *shape[1:])
            # Also has the checksum compared, which zipfile does at the end of the file only.
            if count == shape[0] and file.read(1):
                raise _damaged(self.path, f"{IMAGES} holds more than its {count} images")

    def array(self, key: str) -> NDArray[Any]:
        """One of its small arrays.

        Raises:
            BenchError: the file is damaged, or the array is pickled.
        """
        with _reading(self.path), np.load(self.path, allow_pickle=False) as arrays:
            found: NDArray[Any] = arrays[key]
            return found

    def labels(self) -> NDArray[np.int64] | None:
        """(n,) labels of the images; None if it holds none.

        Raises:
            BenchError: the file is damaged, or its ``arr_1`` is not one integer an image.
        """
        if LABELS not in self.keys:
            return None
        labels = self.array(LABELS)
        if labels.shape != (len(self),) or labels.dtype.kind not in "iu":
            raise BenchError(
                f"{self.path}: {LABELS} is {labels.dtype} of shape {labels.shape}; labels are one "
                f"integer for each of the {len(self)} images"
            )
        return labels.astype(np.int64)


def open_archive(path: Path) -> ImageArchive:
    """Read the table of contents of an archive.

    Raises:
        BenchError: the file is missing, damaged, no ``.npz``, or its ``arr_0`` is not uint8
            (n, H, W, 3) in row-major order.
    """
    if not path.is_file():
        raise BenchError(f"{path} does not exist; name an .npz with images under {IMAGES}")
    shape = None
    with _reading(path), zipfile.ZipFile(path) as archive:
        keys = frozenset(
            name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")
        )
        if IMAGES in keys:
            with archive.open(f"{IMAGES}.npy") as file:
                shape = _image_shape(path, file)
    return ImageArchive(path, keys, shape)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged archive leads to into one message."""
    try:
        yield
    # RuntimeError: encrypted, or compressed in a way that Python does not know.
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> BenchError:
    why = f"{why[:LONGEST]}..." if len(why) > LONGEST else why
    return BenchError(f"{path} is not a whole .npz ({why}); delete it and get or make it again")


def _image_shape(path: Path, file: IO[bytes]) -> tuple[int, int, int, int]:
    """Shape of the images; leaves the file at their first byte."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, column_major, dtype = read(file)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or column_major:
        order = "column" if column_major else "row"
        raise BenchError(
            f"{path}: {IMAGES} is {dtype} of shape {shape}, {order}-major; expected uint8 "
            "(n, H, W, 3), row-major"
        )
    if shape[0] < 0 or shape[1] < 1 or shape[2] < 1:
        raise BenchError(f"{path}: {IMAGES} says it is of shape {shape}; no images are")
    count, height, width, channels = map(int, shape)
    return count, height, width, channels


def export_shards(shards: Sequence[Path], images: int, path: Path) -> None:
    """Join the shards of an image set into one archive, one shard in memory at a time.

    Labels are left out for an unconditional model, as ADM's sampler does. The archive is not
    compressed, and equal images give equal bytes.

    Args:
        shards: in order.
        images: how many they hold together.
        path: archive to write, atomically.

    Raises:
        BenchError: a shard is missing or damaged, or they hold another number of images.
    """
    labels: list[NDArray[np.int64]] = []
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(f"{IMAGES}.npy", "w", force_zip64=True) as file:
            held = _write_images(file, shards, images, labels)
        if held != images:
            raise BenchError(
                f"{len(shards)} shards hold {held} images, expected {images}; draw them again"
            )
        joined = np.concatenate(labels)
        if (joined != NO_LABEL).any():
            with archive.open(f"{LABELS}.npy", "w") as file:
                np.lib.format.write_array(file, joined, allow_pickle=False)


def _write_images(
    file: IO[bytes], shards: Iterable[Path], images: int, labels: list[NDArray[np.int64]]
) -> int:
    held = 0
    for samples in iterate_shards(list(shards)):
        if not held:
            shape = (images, *samples.images.shape[1:])
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        elif samples.images.shape[1:] != shape[1:]:
            raise BenchError(
                f"image {held} is of shape {samples.images.shape[1:]}, those before of "
                f"{shape[1:]}; draw the shards again"
            )
        file.write(np.ascontiguousarray(samples.images).data)
        labels.append(samples.labels)
        held += len(samples)
        del samples  # or two shards would be held while one is read
    return held
