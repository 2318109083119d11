"""LSUN images as the reference of a model that has no published batch.

The database is LMDB: hash keys, encoded image bytes as values, in the order of the keys. It comes
as a zip; LMDB maps its file into memory, so it is unpacked for as long as it is read. Images are
prepared as LDM's loader does for training: centre crop to the shorter side, bicubic resize; without
its random flip.
"""

import io
import shutil
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import lmdb
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.evaluate.feature_types import Extractor
from hqdm_bench.evaluate.reference import Reference, reference_from_images

__all__ = [
    "EncodedImages",
    "decode_batches",
    "open_images",
    "prepare_image",
    "reference_from_lsun",
]

DATABASE = "data.mdb"
SUFFIXES = {".webp", ".jpg", ".jpeg", ".png"}
SPARE_BYTES = 64 * 2**20  # left free beside an unpacked database
AHEAD = 4  # images decoded ahead per thread


def reference_from_lsun(
    path: Path, protocol: Protocol, extractor: Extractor, resolution: int, threads: int = 1
) -> Reference:
    """Reference of all images of an LSUN set.

    Images for precision and recall are drawn from all of them without replacement, always the same
    ones for the same number of images.

    Args:
        path: see `open_images`.
        protocol: how many images there are, and how many are for precision and recall.
        extractor: the network.
        resolution: side of the images the model draws.
        threads: that decode images.

    Raises:
        BenchError: as `open_images`; another number of images than the protocol says, or one that
            cannot be decoded.
    """
    with open_images(path) as images:
        count = len(images)
        if count != protocol.reference_images:
            raise BenchError(
                f"{path} holds {count} images; reference '{protocol.reference}' of protocol "
                f"'{protocol.name}' is made of {protocol.reference_images}"
            )
        order = torch.randperm(count, generator=generator("reference-images", 0))
        chosen = order[: protocol.pr_reference_images].sort().values
        batches = decode_batches(images, resolution, protocol.batch, threads)
        return reference_from_images(batches, protocol, extractor, chosen)


@dataclass(frozen=True)
class EncodedImages:
    """Images as stored, by number.

    Attributes:
        names: keys or file names, in the order of the images.
        read: encoded bytes of the image with that name.
    """

    names: list[str]
    read: Callable[[str], bytes]

    def __len__(self) -> int:
        return len(self.names)


@contextmanager
def open_images(path: Path) -> Iterator[EncodedImages]:
    """Open LSUN images: a zip of their database or of image files, or a folder of either.

    Database images come in the database's order, files sorted by name.

    Raises:
        BenchError: nothing there, no images in it, a damaged database or archive, or no room to
            unpack it.
    """
    with ExitStack() as stack:
        if path.is_dir():
            if (path / DATABASE).is_file():
                images = stack.enter_context(_database(path))
            else:
                images = _folder(path)
        elif path.is_file():
            archive = stack.enter_context(_archive(path))
            members = [name for name in archive.namelist() if PurePosixPath(name).name == DATABASE]
            if len(members) > 1:
                raise BenchError(f"{path} holds {len(members)} databases; name a folder with one")
            if members:
                folder = stack.enter_context(_unpacked(path, archive, members[0]))
                images = stack.enter_context(_database(folder))
            else:
                images = _zipped(path, archive)
        else:
            raise BenchError(
                f"{path} does not exist; it should be LSUN's zip or a folder of images"
            )
        if not images.names:
            kinds = ", ".join(sorted(SUFFIXES))
            raise BenchError(f"{path} holds no images: neither {DATABASE} nor any of {kinds}")
        yield images


def _folder(path: Path) -> EncodedImages:
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES and file.is_file()
    )
    return EncodedImages(names, lambda name: (path / name).read_bytes())


def _zipped(path: Path, archive: zipfile.ZipFile) -> EncodedImages:
    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise BenchError(f"{path}: member {name} is damaged ({error})") from error

    names = [name for name in archive.namelist() if PurePosixPath(name).suffix.lower() in SUFFIXES]
    return EncodedImages(sorted(names), read)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise BenchError(f"{path} is not a whole zip ({error}); fetch it again") from error
    with archive:
        yield archive


@contextmanager
def _unpacked(path: Path, archive: zipfile.ZipFile, member: str) -> Iterator[Path]:
    """A temporary folder that holds the database file; removed afterwards."""
    parent = _folder_with_room(path, archive.getinfo(member).file_size)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", suffix=".tmp", dir=parent) as name:
        target = Path(name) / DATABASE
        try:
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 2**20)
        except (zipfile.BadZipFile, EOFError) as error:
            raise BenchError(
                f"{path}: member {member} is damaged ({error}); fetch it again"
            ) from error
        except OSError as error:
            raise BenchError(f"cannot unpack {path} into {name}: {error.strerror}") from error
        yield Path(name)


def _folder_with_room(path: Path, size: int) -> Path:
    """The archive's folder if its disk has room, else the one for temporary files."""
    folders = (path.parent, Path(tempfile.gettempdir()))
    for folder in folders:
        if shutil.disk_usage(folder).free >= size + SPARE_BYTES and _writable(folder):
            return folder
    tried = " nor ".join(str(folder) for folder in folders)
    raise BenchError(
        f"{path} unpacks to {size / 1e9:.2f} GB, for which neither {tried} has room; free some, or "
        "set TMPDIR to a folder on a larger disk"
    )


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextmanager
def _database(folder: Path) -> Iterator[EncodedImages]:
    """An unpacked database, read without its lock file."""
    file = folder / DATABASE
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise BenchError(f"{file} is not an LMDB database ({error}); fetch it again") from error
    with environment:
        pages = environment.info()["last_pgno"] + 1
        needed = pages * environment.stat()["psize"]
        # A page behind the end of the file would end the process with a bus error.
        if file.stat().st_size < needed:
            raise BenchError(
                f"{file} is truncated: {file.stat().st_size} of {needed} bytes; fetch it again"
            )
        with environment.begin() as transaction:
            keys = list(transaction.cursor().iternext(values=False))
            by_name = {key.decode("ascii", "backslashreplace"): key for key in keys}
            yield EncodedImages(
                list(by_name), lambda name: transaction.get(by_name[name], default=b"")
            )


def prepare_image(encoded: bytes, name: str, resolution: int) -> Tensor:
    """Decode an image and prepare it as LDM's loader does.

    RGB; the square of the shorter side's length in the middle, whose left and upper edges are
    rounded down; Pillow's bicubic resize if that side is not ``resolution``.

    Returns:
        (resolution, resolution, 3) uint8.

    Raises:
        BenchError: not an image, or a damaged one; the message has its name.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BenchError(f"image {name} cannot be decoded ({error})") from error
    width, height = image.size
    side = min(width, height)
    left, upper = (width - side) // 2, (height - side) // 2
    image = image.crop((left, upper, left + side, upper + side))
    if side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image))


def decode_batches(
    images: EncodedImages, resolution: int, batch: int, threads: int
) -> Iterator[Tensor]:
    """Prepared images in order, (n, resolution, resolution, 3) uint8.

    Threads decode ahead while the caller works on a batch; the result does not depend on them.

    Raises:
        BenchError: an image cannot be decoded.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Tensor]] = deque()
        try:
            done: list[Tensor] = []
            for name in images.names:
                waiting.append(pool.submit(prepare_image, images.read(name), name, resolution))
                if len(waiting) > batch + AHEAD * threads:
                    done.append(waiting.popleft().result())
                if len(done) == batch:
                    yield torch.stack(done)
                    done = []
            done += [future.result() for future in waiting]
            for rest in range(0, len(done), batch):
                yield torch.stack(done[rest : rest + batch])
        finally:
            pool.shutdown(cancel_futures=True)
