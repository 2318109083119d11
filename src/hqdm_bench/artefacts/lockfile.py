"""The lock: digests of files whose publishers give none, recorded at first use.

``config/artefacts.lock.json`` maps an artefact's name to its sha256, its size and the URL it came
from. It is meant to be committed, so that every later download is held to the first one.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hqdm_bench.artefacts.locking import exclusive
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_json

__all__ = ["Record", "read_lock", "record"]


@dataclass(frozen=True)
class Record:
    """One recorded file.

    Attributes:
        sha256: 64 hexadecimal digits.
        bytes: its size.
        url: where it came from; None for a local file.
    """

    sha256: str
    bytes: int
    url: str | None


def read_lock(path: Path) -> dict[str, Record]:
    """Every record by artefact name; empty if nothing was recorded yet.

    Raises:
        BenchError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: _record(entry) for name, entry in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BenchError(
            f"{path} is not a list of recorded artefacts ({error}); take it back from git, or "
            "delete it to record the files anew"
        ) from error


def _record(entry: dict[str, Any]) -> Record:
    found = Record(**entry)
    digest_ok = isinstance(found.sha256, str) and re.fullmatch("[0-9a-f]{64}", found.sha256)
    if not digest_ok or type(found.bytes) is not int or not isinstance(found.url, str | None):
        raise ValueError(f"bad entry {entry}")
    return found


def record(path: Path, name: str, found: Record) -> Record:
    """Add a record unless one is there, and return the one that then holds.

    Several processes may do so at once; the first one's record stays.

    Raises:
        BenchError: the file is damaged or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    guard = path.with_name(f".{path.name}.guard")
    try:
        with exclusive(guard, f"writing {path}"):
            try:
                entries = read_lock(path)
                if name not in entries:
                    entries[name] = found
                    write_json(path, {key: asdict(entries[key]) for key in sorted(entries)})
            finally:
                guard.unlink()
    except PermissionError as error:
        raise BenchError(f"cannot record '{name}' in {path}: {error.strerror}") from error
    return entries[name]
