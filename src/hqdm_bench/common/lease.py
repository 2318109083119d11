"""A lease on one GPU of this host, so that jobs side by side do not share one.

Snakemake counts GPUs (``--resources gpu=4``) but does not say which one a job gets. Each process
takes an exclusive ``flock`` on the lock file of a GPU; the kernel gives it back when the process
ends, however it ends. Nothing here needs torch.
"""

import contextlib
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from hqdm_bench.common.errors import BenchError

__all__ = ["LOCKS_VARIABLE", "gpu_names", "lease", "lock_folder"]

LOCKS_VARIABLE = "HQDM_BENCH_LOCKS"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two rounds over all GPUs


def gpu_names(uuids: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names of the visible GPUs that mean the same device to every process of the host.

    An index does not: under ``CUDA_VISIBLE_DEVICES`` or in a scheduler's cgroup the first GPU of
    every job is number 0. A UUID does. Slices of a MIG device may report the UUID of the whole;
    for them the entry of ``CUDA_VISIBLE_DEVICES``, which names the slice, is taken.

    Args:
        uuids: what the driver calls the visible devices, in the order of their indices.
        environment: holds ``CUDA_VISIBLE_DEVICES`` if it is set.
    """
    entries = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    slices = {i: entry.strip() for i, entry in enumerate(entries) if "MIG-" in entry}
    return [slices.get(index, uuid) for index, uuid in enumerate(uuids)]


def lock_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """``$HQDM_BENCH_LOCKS``, or the user's own folder in the temporary directory.

    Users who share the GPUs of a host without a scheduler set the variable to one folder that all
    of them can write. It must be on a disk of the host: on a network file system a lock may hold
    for one node only.
    """
    if chosen := environment.get(LOCKS_VARIABLE):
        return Path(chosen)
    return Path(tempfile.gettempdir()) / f"hqdm-bench-locks-{os.getuid()}"


@contextlib.contextmanager
def lease(names: Sequence[str], folder: Path) -> Iterator[int]:
    """Hold one of several GPUs; yields its index in ``names``.

    While all are held it waits, and says once on stderr which processes hold them.

    Raises:
        BenchError: ``names`` is empty, or the lock files cannot be written.
    """
    if not names:
        raise BenchError("no GPU to lease: none is visible")
    with contextlib.ExitStack() as files:
        locks = [files.enter_context(_open_lock(folder, name)) for name in names]
        index = _wait_for_one(names, locks)
        for lock in locks[:index] + locks[index + 1 :]:
            lock.close()
        locks[index].truncate(0)
        locks[index].write(f"{os.getpid()}\n")
        locks[index].flush()
        yield index


def _open_lock(folder: Path, name: str) -> TextIO:
    """Open a lock file for appending: whoever opens it must not erase the holder's entry.

    Lock files are never removed, since a waiting process may have one open.
    """
    path = folder / f"{name.replace('/', '_')}.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+", encoding="ascii")
    except OSError as error:
        raise BenchError(
            f"cannot open the GPU lock {path}: {error.strerror}; set {LOCKS_VARIABLE} to a folder "
            "on a local disk that you can write"
        ) from error
    with contextlib.suppress(PermissionError):  # another user's file, shared already
        os.fchmod(file.fileno(), 0o666)
    return file


def _wait_for_one(names: Sequence[str], locks: Sequence[TextIO]) -> int:
    """Index of the first lock that could be taken."""
    pause = FIRST_PAUSE
    told = False
    while True:
        for index, lock in enumerate(locks):
            if _try_to_take(lock):
                return index
        if not told:
            sys.stderr.write(f"waiting for a GPU: {_holders(names, locks)}\n")
            sys.stderr.flush()
            told = True
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _try_to_take(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BenchError(
            f"cannot lock {lock.name}: {error.strerror}; set {LOCKS_VARIABLE} to a folder on a "
            "local disk"
        ) from error
    return True


def _holders(names: Sequence[str], locks: Sequence[TextIO]) -> str:
    entries = []
    for name, lock in zip(names, locks, strict=True):
        lock.seek(0)
        entries.append(f"{name} is held by process {lock.read().strip() or 'unknown'}")
    return ", ".join(entries)
