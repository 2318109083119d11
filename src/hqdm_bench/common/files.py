"""Atomic files: a name that exists is a file that is whole."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hqdm_bench.common.errors import BenchError

__all__ = [
    "atomic_path",
    "copy_file",
    "digest",
    "read_json",
    "require_file",
    "sha256_of",
    "write_json",
    "write_text",
]


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there once the block has succeeded.

    The temporary file keeps the suffix (writers choose formats by it) and lives in the same
    folder, so the final rename cannot cross file systems. On any failure it is removed and
    ``path`` is left as it was.

    Raises:
        BenchError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(
                f"no space left while writing {path}; free some and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise BenchError(f"cannot write {path}: {error.strerror}") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; key order is kept, NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def require_file(path: Path) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        BenchError: it is not; the message gives the command that makes it.
    """
    if not path.is_file():
        raise BenchError(f"{path} does not exist; `snakemake {path}` makes it")
    return path


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BenchError: the file is missing or is not JSON.
    """
    try:
        return json.loads(require_file(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with require_file(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the sha256 of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
