"""The part of a file that has arrived, kept so that a later run asks only for the rest.

``.{file}.part`` holds the bytes and ``.{file}.part.json`` says whose they are. A part is continued
only from the very URL it came from and only while the server's validator is the same; any other
source starts afresh.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Self

from hqdm_bench.artefacts.locking import exclusive
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_json

__all__ = ["Origin", "Part", "has_arrived", "part_path", "require_space", "size_text"]

DISK_MARGIN = 1.05


@dataclass(frozen=True)
class Origin:
    """Whose bytes a part holds.

    Attributes:
        url: the URL asked for.
        final_url: the one that answered, after redirects.
        validator: strong ETag or Last-Modified; None if the server gave neither.
        total: size of the whole file; None if the server did not say.
    """

    url: str
    final_url: str
    validator: str | None
    total: int | None


def part_path(target: Path) -> Path:
    """Where the arrived part of a file is kept."""
    return target.with_name(f".{target.name}.part")


def _sidecar(target: Path) -> Path:
    return target.with_name(f".{target.name}.part.json")


def _read_origin(target: Path) -> Origin | None:
    try:
        return Origin(**json.loads(_sidecar(target).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # bytes of unknown origin are not continued


def has_arrived(target: Path, url: str) -> bool:
    """Whether the part is all of ``url``, so that only the checks are missing."""
    origin, path = _read_origin(target), part_path(target)
    if origin is None or origin.url != url or not origin.total:
        return False
    return path.is_file() and path.stat().st_size == origin.total


def size_text(count: int) -> str:
    """``1830.0 MB``; small sizes in bytes."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count} bytes"


def require_space(folder: Path, needed: int, name: str) -> None:
    """Refuse to start what cannot be finished.

    Raises:
        BenchError: less than ``needed`` bytes and 5 % are free where ``folder`` is.
    """
    free, needed = shutil.disk_usage(folder).free, int(needed * DISK_MARGIN)
    if free < needed:
        raise BenchError(
            f"not enough space for '{name}': {size_text(needed)} are needed in {folder.resolve()}, "
            f"{size_text(free)} are free there; free some, or make {folder} a link to a folder on "
            "a larger disk"
        )


class Part:
    """An arrived part, locked against other processes; made by :meth:`claim`."""

    def __init__(self, target: Path, handle: FileIO) -> None:
        self.target = target
        self.path = part_path(target)
        self._sidecar = _sidecar(target)
        self._handle = handle
        self.origin = _read_origin(target)

    @classmethod
    @contextlib.contextmanager
    def claim(cls, target: Path) -> Iterator[Self]:
        """Take the part of ``target``, empty if there is none; an empty one leaves no file."""
        with exclusive(part_path(target), f"fetching {target}") as handle:
            part = cls(target, handle)
            try:
                yield part
            finally:
                if not part.size:
                    part.remove()

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return os.fstat(self._handle.fileno()).st_size

    def offset(self, url: str) -> int:
        """Bytes that need not be asked for again from ``url``."""
        origin = self.origin
        if origin is None or origin.url != url or origin.validator is None:
            return 0
        return self.size if origin.total is None or self.size < origin.total else 0

    def begin(self, origin: Origin) -> None:
        """Start afresh."""
        # In this order: bytes are never beside the description of others.
        self.discard()
        write_json(self._sidecar, asdict(origin))
        self.origin = origin

    def append(self, data: bytes) -> None:
        """Add bytes; they survive the end of this process.

        Raises:
            BenchError: the disk is full or fails; what has arrived is kept.
        """
        try:
            view = memoryview(data)
            while view:
                view = view[self._handle.write(view) :]
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise BenchError(
                f"{'no space left' if full else f'cannot write ({error.strerror})'} for "
                f"{self.target}: {size_text(self.size)} have arrived and are kept in {self.path}; "
                f"{'free some space' if full else 'solve that'} and run again to go on from there"
            ) from error

    def discard(self) -> None:
        """Forget what has arrived."""
        self._handle.truncate(0)
        self._sidecar.unlink(missing_ok=True)
        self.origin = None

    def publish(self) -> None:
        """Give the whole, checked file its final name."""
        os.fsync(self._handle.fileno())
        self.path.replace(self.target)
        self._sidecar.unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave nothing behind."""
        self._sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
