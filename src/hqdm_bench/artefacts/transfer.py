"""Downloading one URL into a part: continue, restart, try again."""

import logging
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from hqdm_bench.artefacts.faults import Interrupted, Mismatch, Refused
from hqdm_bench.artefacts.formats import markup_page
from hqdm_bench.artefacts.part import Origin, Part, has_arrived, require_space, size_text
from hqdm_bench.artefacts.web import Transfer, open_url
from hqdm_bench.catalogue import ArtefactSpec
from hqdm_bench.common.progress import Progress

if TYPE_CHECKING:
    import requests

__all__ = ["download", "public_url"]

LOG = logging.getLogger(__name__)
MEGABYTE = 10**6


def download(
    spec: ArtefactSpec, url: str, part: Part, transfer: Transfer, size: int | None
) -> bool:
    """Bring all of ``url`` into the part.

    Args:
        spec: the artefact, for its name and its planned size.
        url: http or https.
        part: what has arrived; kept if the download fails halfway.
        transfer: timeouts and repetitions.
        size: of the file, if it is known beforehand.

    Returns:
        Whether bytes of several connections were put together.

    Raises:
        Refused: the source cannot give the file; the message says why.
        BenchError: the disk is too small, or full.
    """
    continued, failures, most = False, 0, part.size
    while True:
        continued |= part.offset(url) > 0 or has_arrived(part.target, url)
        try:
            _attempt(spec, url, part, transfer, size)
            return continued
        except Interrupted as error:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures > transfer.retries:
                raise Refused(f"{error} ({failures} failures in a row)") from error
            wait = min(transfer.backoff * 2 ** (failures - 1), transfer.longest_wait)
            wait = wait if error.wait is None else error.wait
            LOG.warning("%s: %s %s; trying again in %.3g s", spec.name, url, error, wait)
            time.sleep(wait)


def _attempt(
    spec: ArtefactSpec, url: str, part: Part, transfer: Transfer, size: int | None
) -> None:
    if has_arrived(part.target, url):
        return
    with open_url(url, transfer, _rest_of(part, url)) as response:
        begun = _continued(response, part, url)
        if begun is None and response.status_code != 200:  # the rest of another file, or none
            part.discard()
            raise Interrupted("has another file than the one that was begun", wait=0)
        origin = begun or _announced(response, url, spec, size)
        planned = origin.total or size or spec.about_bytes
        require_space(part.path.parent, max(planned - part.size, 0), spec.name)
        with Progress(f"fetch {spec.name} (MB)", max(planned // MEGABYTE, 1)) as progress:
            for chunk in _chunks(response, part, origin, transfer, fresh=begun is None):
                part.append(chunk)
                progress.update(part.size // MEGABYTE)
    if origin.total is not None and part.size < origin.total:
        raise Interrupted(_truncated(part.size, origin.total))


def _rest_of(part: Part, url: str) -> dict[str, str]:
    """Headers that ask for what is missing, if the file is still the same."""
    offset = part.offset(url)
    if not offset or part.origin is None or part.origin.validator is None:
        return {}
    return {"Range": f"bytes={offset}-", "If-Range": part.origin.validator}


def _continued(response: "requests.Response", part: Part, url: str) -> Origin | None:
    """The origin of the part if the body is its rest, else None."""
    origin = part.origin
    if response.status_code != 206 or origin is None:
        return None
    header = response.headers.get("Content-Range", "").strip()
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", header)
    if not found or int(found[1]) != part.offset(url):
        return None
    same_total = origin.total is None or found[3] in ("*", str(origin.total))
    same_file = _validator(response) in (None, origin.validator)
    return origin if same_total and same_file else None


def _announced(
    response: "requests.Response", url: str, spec: ArtefactSpec, size: int | None
) -> Origin:
    """What a fresh answer says of the file it brings."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if size is not None and total is not None and total != size:
        raise Mismatch(f"announces {total} bytes, {size} are expected")
    return Origin(url, public_url(response.url, spec), _validator(response), total)


def _chunks(
    response: "requests.Response", part: Part, origin: Origin, transfer: Transfer, fresh: bool
) -> Iterator[bytes]:
    """The body; a fresh one replaces what had arrived before, unless it is an error page."""
    from requests.exceptions import ChunkedEncodingError

    html = response.headers.get("Content-Type", "").startswith("text/html")
    try:
        for chunk in response.iter_content(transfer.chunk):
            if fresh:
                page = markup_page(chunk)
                if page or html:
                    raise Refused(f"sent {page or 'a text/html page'} instead of the file")
                part.begin(origin)
                fresh = False
            yield chunk
    except ChunkedEncodingError as error:
        raise Interrupted(_truncated(part.size, origin.total)) from error


def _truncated(size: int, total: int | None) -> str:
    of = f" of {size_text(total)}" if total is not None else ", before the end"
    return f"truncated: the connection ended after {size_text(size)}{of}"


def _validator(response: "requests.Response") -> str | None:
    """What tells this version of the file from others; weak tags do not promise equal bytes."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified")


def public_url(url: str, spec: ArtefactSpec) -> str:
    """A URL as it may be recorded: of those not in the catalogue, no user, query or fragment.

    Redirects lead to signed addresses, whose queries are credentials.
    """
    if url in spec.urls:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
