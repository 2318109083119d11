"""Is a file the one that is meant: by size, by format, by sha256."""

from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.artefacts.faults import Mismatch, Refused
from hqdm_bench.artefacts.formats import check_format
from hqdm_bench.artefacts.lockfile import Record, read_lock, record
from hqdm_bench.catalogue import ArtefactSpec, Layout
from hqdm_bench.common.files import sha256_of

__all__ = ["Expected", "Verdict", "expected_of", "verify"]


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is there.

    Attributes:
        sha256: its digest.
        bytes: its size, if that is known too.
        source: the file that says so.
        accept: what to do if the published file was changed on purpose.
    """

    sha256: str
    bytes: int | None
    source: Path
    accept: str


@dataclass(frozen=True)
class Verdict:
    """A file that passed.

    Attributes:
        recorded: nothing was known of it, and its digest was written to the lock.
    """

    sha256: str
    bytes: int
    recorded: bool


def expected_of(spec: ArtefactSpec, layout: Layout) -> Expected | None:
    """The catalogue's digest, else the recorded one, else None.

    Raises:
        BenchError: the lock is damaged.
    """
    if spec.sha256:
        catalogue = layout.root / "config" / "artefacts.yaml"
        accept = f"correct the sha256 of {spec.name} in {catalogue}"
        return Expected(spec.sha256, spec.bytes, catalogue, accept)
    found = read_lock(layout.artefact_lock).get(spec.name)
    if not found:
        return None
    accept = f"delete the entry {spec.name} from {layout.artefact_lock} and run again"
    return Expected(found.sha256, found.bytes, layout.artefact_lock, accept)


def verify(spec: ArtefactSpec, layout: Layout, path: Path, url: str | None) -> Verdict:
    """Check a file; record its digest if none is known.

    Args:
        spec: the artefact it is meant to be.
        layout: says where the lock is.
        path: the file, under whatever name.
        url: where it came from, for the record; None for a local file.

    Raises:
        Refused: wrong size or format.
        Mismatch: another digest than the known one.
        BenchError: the lock is damaged or cannot be written.
    """
    expected, size = expected_of(spec, layout), path.stat().st_size
    _check_size(expected.bytes if expected else spec.bytes, size)
    check_format(spec.kind, path)
    sha256 = sha256_of(path)
    if expected is None:
        holding = record(layout.artefact_lock, spec.name, Record(sha256, size, url))
        _check_digest(holding.sha256, sha256, layout.artefact_lock)
    else:
        _check_digest(expected.sha256, sha256, expected.source)
    return Verdict(sha256, size, recorded=expected is None)


def _check_size(expected: int | None, size: int) -> None:
    if expected is not None and size < expected:
        raise Refused(f"it is truncated: {size} of {expected} bytes")
    if expected is not None and size > expected:
        raise Mismatch(f"it has {size} bytes, {expected} are expected")


def _check_digest(expected: str, found: str, source: Path) -> None:
    if found != expected:
        raise Mismatch(f"its sha256 is {found}, {source} says {expected}")
