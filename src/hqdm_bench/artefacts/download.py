"""Bringing an artefact to its place: already there, by hand, or from the first mirror that works.

The final name appears only when size, format and sha256 are right. Until then the bytes live in a
hidden part, see :mod:`hqdm_bench.artefacts.part`.
"""

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hqdm_bench.artefacts.faults import Mismatch, Refused
from hqdm_bench.artefacts.local import adopt, local_path
from hqdm_bench.artefacts.part import Part, has_arrived, part_path, size_text
from hqdm_bench.artefacts.transfer import download, public_url
from hqdm_bench.artefacts.verify import Verdict, expected_of, verify
from hqdm_bench.artefacts.web import Transfer
from hqdm_bench.catalogue import ArtefactSpec, Layout
from hqdm_bench.common.errors import BenchError

__all__ = ["Fetched", "fetch_artefact", "verify_artefact"]

LOG = logging.getLogger(__name__)
How = Literal["present", "downloaded", "linked", "copied"]
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Fetched:
    """A verified artefact.

    Attributes:
        path: where it is.
        sha256: its digest.
        bytes: its size.
        how: it was there before, was downloaded, or came from a local file.
        recorded: no digest was known; this one is now in the lock, which should be committed.
    """

    path: Path
    sha256: str
    bytes: int
    how: How
    recorded: bool


@dataclass(frozen=True)
class _Job:
    spec: ArtefactSpec
    layout: Layout
    transfer: Transfer

    @property
    def target(self) -> Path:
        return self.layout.artefact(self.spec)

    def done(self, verdict: Verdict, how: How) -> Fetched:
        return Fetched(self.target, verdict.sha256, verdict.bytes, how, verdict.recorded)


def fetch_artefact(
    spec: ArtefactSpec,
    layout: Layout,
    source: str | None = None,
    offline: bool = False,
    transfer: Transfer | None = None,
) -> Fetched:
    """Make sure that an artefact is there and is the right one.

    Args:
        spec: catalogue entry.
        layout: of the project folder.
        source: path or URL to take instead of the mirrors.
        offline: open no connection.
        transfer: timeouts and repetitions.

    Raises:
        BenchError: it cannot be had, is not what the catalogue or the lock says, or does not fit
            on the disk. No file stays under the final name then.
    """
    job = _Job(spec, layout, transfer or Transfer())
    sources = (source,) if source else spec.urls
    with _storage_errors(job.target):
        if _is_there(job.target):
            return _verified(job)
        if offline and not any(_without_network(job.target, one) for one in sources):
            raise BenchError(_offline_message(job, sources))
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with Part.claim(job.target) as part:
            if _is_there(job.target):  # another process has fetched it while we waited
                return _verified(job)
            return _from_first(job, part, sources, offline)


def verify_artefact(spec: ArtefactSpec, layout: Layout) -> Fetched:
    """Check the file that is there, whoever put it there, before it is used.

    Raises:
        BenchError: it is missing or wrong. A wrong file is renamed, so that nothing takes it.
    """
    job = _Job(spec, layout, Transfer())
    if not _is_there(job.target):
        raise BenchError(f"{job.target} does not exist; `hqdm-bench fetch {spec.name}` gets it")
    with _storage_errors(job.target):
        return _verified(job)


def _is_there(target: Path) -> bool:
    if target.is_symlink() and not target.exists():
        raise BenchError(f"{target} is a link to {target.readlink()}, which does not exist")
    if target.is_dir():
        raise BenchError(f"{target} is a folder; the artefact is one file, remove the folder")
    return target.exists()


def _verified(job: _Job) -> Fetched:
    try:
        return job.done(verify(job.spec, job.layout, job.target, None), "present")
    except Refused as error:
        aside = job.target.with_name(job.target.name + ".refused")
        job.target.replace(aside)
        raise BenchError(
            f"{job.target} is not '{job.spec.name}': {error}. It was renamed to {aside}, so that "
            f"nothing uses it; run `hqdm-bench fetch {job.spec.name}` to get the file"
            + _how_to_accept(job, [error])
        ) from error


def _from_first(job: _Job, part: Part, sources: Sequence[str], offline: bool) -> Fetched:
    """Try the sources in order, that of an arrived part first."""
    begun = part.origin.url if part.origin else None
    reasons: dict[str, Refused] = {}
    for source in sorted(sources, key=lambda one: one != begun):
        if offline and not _without_network(job.target, source):
            continue
        if reasons:
            LOG.warning("%s: %s; trying %s", job.spec.name, list(reasons.values())[-1], source)
        try:
            return _from_one(job, part, source)
        except Refused as error:
            reasons[source] = error
    if not reasons:
        raise BenchError(_offline_message(job, sources))
    raise BenchError(_failed_message(job, part, reasons))


def _from_one(job: _Job, part: Part, source: str) -> Fetched:
    scheme = source.partition("://")[0].lower() if URL.match(source) else "path"
    if scheme in ("http", "https"):
        return _download(job, part, source)
    if scheme not in ("path", "file"):
        raise Refused(f"{scheme} is not supported; use http, https, file or a path")
    path = local_path(source) if scheme == "file" else Path(source).expanduser()
    recorded_url = source if source in job.spec.urls else None
    verdict, how = adopt(
        path,
        job.target,
        job.spec.name,
        lambda temporary: verify(job.spec, job.layout, temporary, recorded_url),
    )
    part.discard()
    return job.done(verdict, how)


def _download(job: _Job, part: Part, url: str, again: bool = True) -> Fetched:
    expected = expected_of(job.spec, job.layout)
    size = expected.bytes if expected else job.spec.bytes
    continued = download(job.spec, url, part, job.transfer, size)
    final = part.origin.final_url if part.origin else public_url(url, job.spec)
    try:
        verdict = verify(job.spec, job.layout, part.path, final)
    except Refused as error:
        part.discard()  # nothing goes on from damaged bytes
        if not (continued and again):
            raise
        # Pieces of several connections may not fit together; those of one do.
        LOG.warning("%s: %s: of the continued download, %s", job.spec.name, url, error)
        LOG.warning("%s: downloading it again from the start", job.spec.name)
        return _download(job, part, url, again=False)
    part.publish()
    return job.done(verdict, "downloaded")


def _without_network(target: Path, source: str) -> bool:
    web = source.lower().startswith(("http://", "https://"))
    return not web or has_arrived(target, source)


@contextlib.contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BenchError(f"cannot read or write {target}: {error.strerror or error}") from error


def _by_hand(job: _Job, flags: str = "") -> str:
    fetch = f"hqdm-bench fetch {job.spec.name}"
    return (
        f"put it at {job.target} and run `{fetch}{flags}` to check it, or name a copy with "
        f"`{fetch} --from PATH`"
    )


def _offline_message(job: _Job, sources: Sequence[str]) -> str:
    spec, part = job.spec, part_path(job.target)
    begun = f" ({size_text(part.stat().st_size)} of it are in {part})" if part.is_file() else ""
    return (
        f"'{spec.name}' is missing{begun} and nothing is downloaded with --offline. Get "
        f"{spec.title}, about {size_text(spec.about_bytes)}, from {' or '.join(sources)}; "
        f"{_by_hand(job, ' --offline')}"
    )


def _failed_message(job: _Job, part: Part, reasons: Mapping[str, Refused]) -> str:
    tried = "; ".join(f"{source}: {reason}" for source, reason in reasons.items())
    kept = f" {size_text(part.size)} are kept, the next run goes on there." if part.size else ""
    return (
        f"'{job.spec.name}' could not be fetched. {tried}.{kept} If you can get "
        f"{job.spec.title} by other means, {_by_hand(job)} (or a URL)"
        + _how_to_accept(job, reasons.values())
    )


def _how_to_accept(job: _Job, reasons: Iterable[Refused]) -> str:
    expected = expected_of(job.spec, job.layout)
    if expected is None or not any(isinstance(reason, Mismatch) for reason in reasons):
        return ""
    return f". If the published file was changed on purpose, {expected.accept}"
