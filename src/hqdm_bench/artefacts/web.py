"""HTTP requests whose every failure is a reason, temporary or not."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from hqdm_bench import __version__
from hqdm_bench.artefacts.faults import Interrupted, Refused

if TYPE_CHECKING:
    import requests

__all__ = ["Transfer", "open_url"]

TRY_LATER = (408, 429)
RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class Transfer:
    """How patient a download is.

    Attributes:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds a server may send nothing.
        retries: failures in a row, without a new byte between them, before a source is given up.
        backoff: seconds before the first repetition; doubles with each.
        longest_wait: seconds before a repetition at most.
        redirects: followed at most.
        chunk: bytes read at a time.
    """

    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    retries: int = 5
    backoff: float = 2.0
    longest_wait: float = 300.0
    redirects: int = 5
    chunk: int = 1 << 20


@contextlib.contextmanager
def open_url(
    url: str, transfer: Transfer, headers: Mapping[str, str] | None = None
) -> Iterator["requests.Response"]:
    """Answer of a server whose body has not been read: 200, 206, or 416 if a range was asked for.

    Redirects are followed, from https to http they are not. What goes wrong while the body is read
    inside the block is translated too.

    Raises:
        Refused: asking again is of no use.
        Interrupted: it may be.
    """
    import requests

    asked = {
        "User-Agent": f"hqdm-bench/{__version__}",
        "Accept-Encoding": "identity",  # offsets and sizes are those of the file itself
        **(headers or {}),
    }
    with (
        _translated(transfer),
        requests.Session() as session,
        _follow(session, url, asked, transfer) as response,
    ):
        _check_status(response, transfer)
        yield response


def _follow(
    session: "requests.Session", url: str, headers: Mapping[str, str], transfer: Transfer
) -> "requests.Response":
    timeout = (transfer.connect_timeout, transfer.read_timeout)
    for _ in range(transfer.redirects + 1):
        if urlsplit(url).scheme not in ("http", "https"):
            raise Refused(f"redirected to {url}, which is not http or https")
        response = session.get(
            url, headers=headers, timeout=timeout, stream=True, allow_redirects=False
        )
        location = session.get_redirect_target(response)
        if location is None:
            return response
        response.close()
        following = urljoin(url, location)
        if urlsplit(url).scheme == "https" and urlsplit(following).scheme == "http":
            raise Refused(f"redirected from https to the unprotected {following}")
        url = following
    raise Refused(f"redirected more than {transfer.redirects} times")


def _check_status(response: "requests.Response", transfer: Transfer) -> None:
    status, ranged = response.status_code, "Range" in response.request.headers
    if status == 200 or (ranged and status in (206, RANGE_NOT_SATISFIABLE)):
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise Refused(f"sent the file in another encoding ({encoding})")
        return
    answer = f"answered {status} {response.reason or ''}".rstrip()
    if status not in TRY_LATER and status < 500:
        raise Refused(answer)
    wait = _retry_after(response.headers.get("Retry-After"))
    if wait is not None and wait > transfer.longest_wait:
        raise Refused(f"{answer} and asks to come back in {wait:.0f} s")
    raise Interrupted(answer, wait)


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number of them or from a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


@contextlib.contextmanager
def _translated(transfer: Transfer) -> Iterator[None]:
    from requests import exceptions

    permanent = (
        exceptions.SSLError,
        exceptions.InvalidURL,
        exceptions.InvalidSchema,
        exceptions.MissingSchema,
        exceptions.InvalidHeader,
    )
    try:
        yield
    except exceptions.ConnectTimeout as error:
        raise Interrupted(f"no connection within {transfer.connect_timeout:g} s") from error
    except exceptions.ReadTimeout as error:
        raise Interrupted(_stalled(transfer)) from error
    except permanent as error:
        raise Refused(_root(error)) from error
    except exceptions.RequestException as error:
        stalled = "Read timed out" in str(error)  # while a body is read it comes as another class
        raise Interrupted(_stalled(transfer) if stalled else _root(error)) from error


def _stalled(transfer: Transfer) -> str:
    return f"stalled: nothing was sent for {transfer.read_timeout:g} s"


def _root(error: BaseException) -> str:
    """The innermost cause: requests wraps one line of information in several of its own."""
    inner: BaseException | None = error
    while inner is not None:
        error, inner = inner, inner.__cause__ or inner.__context__
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
