"""Files that one process at a time may change."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

__all__ = ["exclusive"]

LOG = logging.getLogger(__name__)
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def exclusive(path: Path, purpose: str) -> Iterator[FileIO]:
    """Open a file to append to, made if it is missing, and keep other processes out of it.

    The lock is the kernel's, so it ends with the process, however that ends. Whoever holds it may
    rename or remove the file.

    Args:
        path: the file.
        purpose: what another holder does; logged while waiting for it.
    """
    handle = _locked(path, purpose)
    while not _still_at(path, handle):  # the last holder renamed or removed what we waited for
        handle.close()
        handle = _locked(path, purpose)
    with handle:
        yield handle


def _locked(path: Path, purpose: str) -> FileIO:
    handle = FileIO(path, "a+")
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning("waiting for another process that is %s", purpose)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            handle.close()
            raise
        LOG.warning(
            "the file system of %s has no file locks; run one fetch at a time there", path.parent
        )
    except BaseException:
        handle.close()
        raise
    return handle


def _still_at(path: Path, handle: FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False
