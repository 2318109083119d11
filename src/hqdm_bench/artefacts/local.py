"""Taking a file that is already on this machine."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import unquote, urlsplit

from hqdm_bench.artefacts.faults import Refused
from hqdm_bench.artefacts.part import require_space
from hqdm_bench.common.errors import BenchError

__all__ = ["adopt", "local_path"]

Checked = TypeVar("Checked")
# Another file system, one without links, too many links, or a file of somebody else.
CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


def local_path(url: str) -> Path:
    """The path of a ``file://`` URL.

    Raises:
        Refused: it names another machine.
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise Refused(f"file URLs are of the form file:///folder/file, not file://{parts.netloc}/")
    return Path(unquote(parts.path))


def adopt(
    source: Path, target: Path, name: str, check: Callable[[Path], Checked]
) -> tuple[Checked, Literal["linked", "copied"]]:
    """Link a file to its place, or copy it from another file system; atomic.

    Args:
        source: the file; left as it is.
        target: where it is needed.
        name: of the artefact, for messages.
        check: run on the new file before it gets its name.

    Raises:
        Refused: ``source`` is not a file, or ``check`` says so.
        BenchError: no space for a copy, or ``check`` says so.
    """
    _check_source(source)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        how = _link_or_copy(source.resolve(), temporary, name)
        checked = check(temporary)
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return checked, how


def _check_source(source: Path) -> None:
    if source.is_dir():
        raise Refused(
            "it is a folder, and the artefact is kept as one file; pack it first "
            f"(cd {source} && zip -0 -r ../{source.resolve().name}.zip .) and give the archive"
        )
    if not source.is_file():
        raise Refused("there is no such file")


def _link_or_copy(source: Path, temporary: Path, name: str) -> Literal["linked", "copied"]:
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError as error:
        if error.errno not in CANNOT_LINK:
            raise
    else:
        return "linked"
    try:
        require_space(temporary.parent, source.stat().st_size, name)
        shutil.copyfile(source, temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
    except PermissionError as error:
        raise Refused(f"it cannot be read ({error.strerror})") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BenchError(
            f"no space left while copying {source} to {temporary.parent}; free some and run again"
        ) from error
    return "copied"
