"""What can be said of an artefact without reading it, for a look before a long run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from hqdm_bench.artefacts.faults import Interrupted, Refused
from hqdm_bench.artefacts.local import local_path
from hqdm_bench.artefacts.lockfile import Record
from hqdm_bench.artefacts.part import part_path
from hqdm_bench.artefacts.web import Transfer, open_url
from hqdm_bench.catalogue import ArtefactSpec

__all__ = ["Status", "artefact_status", "reachable"]

Status = Literal["verified", "present", "partial", "missing"]


def artefact_status(spec: ArtefactSpec, path: Path, lock: Mapping[str, Record]) -> Status:
    """The state of a file, from its size alone.

    Args:
        spec: catalogue entry.
        path: where the file belongs, ``Layout.artefact(spec)``.
        lock: recorded digests, ``read_lock(Layout.artefact_lock)``.

    Returns:
        ``verified``: it has the size that belongs to a known digest (nothing is hashed);
        ``present``: there is a file, which `fetch` has yet to check;
        ``partial``: a download was begun; ``missing``: there is nothing.
    """
    if path.is_file():
        known = lock.get(spec.name)
        size = spec.bytes if spec.sha256 else (known.bytes if known else None)
        return "verified" if path.stat().st_size == size else "present"
    part = part_path(path)
    return "partial" if part.is_file() and part.stat().st_size else "missing"


def reachable(spec: ArtefactSpec, timeout: float) -> str | None:
    """The first URL that gives the file now, or None; reads no more than its headers.

    Args:
        spec: catalogue entry.
        timeout: seconds for the connection, and as many for the answer. Looking a host name up may
            take longer.
    """
    return next((url for url in spec.urls if _answers(url, timeout)), None)


def _answers(url: str, timeout: float) -> bool:
    transfer = Transfer(connect_timeout=timeout, read_timeout=timeout)
    try:
        if url.lower().startswith("file://"):
            return local_path(url).is_file()
        # Not HEAD, which storage services with signed addresses refuse.
        with open_url(url, transfer, {"Range": "bytes=0-0"}) as response:
            html = response.headers.get("Content-Type", "").startswith("text/html")
            return response.status_code in (200, 206) and not html
    except (Interrupted, Refused, OSError):
        return False
