"""Atomic files: a name that exists is a file that is whole."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
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

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# What else a user can cause and mend: rights, a file where a folder should be, a size limit.
REFUSED = (
    errno.EACCES,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
ABANDONED_AFTER = 86400.0  # seconds without a write


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there once the block has succeeded.

    The temporary file keeps the suffix (writers choose formats by it) and lives in the same
    folder, so the final rename cannot cross file systems. On any failure it is removed and
    ``path`` is left as it was. A process killed by SIGKILL cannot remove it; the next one that
    writes ``path`` does.

    Raises:
        BenchError: the disk is full or the file cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{_process_space()}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        _remove_abandoned(path)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise BenchError(
                f"no space left while writing {path}; free some and run again"
            ) from error
        if error.errno in REFUSED:
            raise BenchError(f"cannot write {path}: {error.strerror}") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _process_space() -> str:
    """Name of the set of processes whose numbers can be compared, 8 hexadecimal digits.

    A process number means something on one boot of one machine, and within one container. Host
    names would not do: hosts that share a file system may have the same, containers change theirs.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        boot, namespace = socket.gethostname(), 0
    return digest([boot, namespace])[:8]


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of ``path`` whose writers have died.

    Whether a writer lives can be asked here only of processes that can be seen. Another machine's
    file goes when nothing has been written to it for `ABANDONED_AFTER` seconds; were its writer
    alive after all, its rename would fail, and nothing half-written would get the final name.
    """
    name = re.compile(
        rf"\.{re.escape(path.stem)}\.([0-9a-f]{{8}})\.(\d{{1,9}})\.tmp{re.escape(path.suffix)}"
    )
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if not (match := name.fullmatch(entry.name)):
                continue
            if match[1] == _process_space():
                abandoned = not _alive(int(match[2]))
            else:
                abandoned = time.time() - entry.stat().st_mtime > ABANDONED_AFTER
            if abandoned:
                with contextlib.suppress(OSError):
                    os.unlink(entry)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


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
