"""A server on this machine that misbehaves on request, and a project folder to download into."""

import contextlib
import dataclasses
import io
import os
import random
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hqdm_bench.artefacts import Transfer, fetch_artefact, read_lock
from hqdm_bench.catalogue import ArtefactSpec, Layout

FAST = Transfer(
    connect_timeout=2, read_timeout=0.3, retries=2, backoff=0.01, longest_wait=0.5, chunk=1000
)


@dataclass
class Answer:
    """What the server does with one request.

    Attributes:
        body: the whole file.
        ranges: honour Range (if If-Range names the current validator).
        length: announced instead of the real one; "" announces none.
        cut: bytes sent before the connection is closed.
        gate: waited for after ``cut`` bytes, which then do not end the body.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    length: str | None = None
    cut: int | None = None
    gate: threading.Event | None = None

    def send(self, request: BaseHTTPRequestHandler) -> None:
        start = self._start(request)
        if start >= len(self.body) and start:
            self._head(request, 416, {"Content-Range": f"bytes */{len(self.body)}"}, "0")
            return
        body = self.body[start:]
        extra = {}
        if start:
            last = len(self.body) - 1
            extra["Content-Range"] = f"bytes {start}-{last}/{len(self.body)}"
        length = str(len(body)) if self.length is None else self.length
        self._head(request, 206 if start else self.status, extra, length)
        request.wfile.write(body[: self.cut])
        if self.gate:
            request.wfile.flush()
            self.gate.wait(20)
            request.wfile.write(body[self.cut :])

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        asked = request.headers.get("Range")
        current = request.headers.get("If-Range") in (None, self.etag)
        if not (asked and self.ranges and current and self.status == 200):
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def _head(
        self, request: BaseHTTPRequestHandler, status: int, extra: dict[str, str], length: str
    ) -> None:
        request.send_response(status)
        headers = {"Content-Length": length, "Connection": "close", **self.headers, **extra}
        if self.etag:
            headers["ETag"] = self.etag
        for name, value in headers.items():
            if value:
                request.send_header(name, value)
        request.end_headers()


class Server(ThreadingHTTPServer):
    """Answers by path; the last answer of a path is repeated."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._guard = threading.Lock()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def put(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return self.url(path)

    def ranges(self, path: str | None = None) -> list[str | None]:
        """Range header of every request so far."""
        return [headers.get("Range") for one, headers in self.asked if path in (None, one)]

    def answer(self, request: BaseHTTPRequestHandler) -> Answer:
        with self._guard:
            self.asked.append((request.path, dict(request.headers)))
            answers = self.answers.get(request.path) or [Answer(b"no such file", 404)]
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has left is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.answer(self).send(self)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        for answers in running.answers.values():
            for answer in answers:
                if answer.gate:
                    answer.gate.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def zipped() -> Callable[..., bytes]:
    """A stored zip archive of members of random bytes: zipped(**{"arr_0.npy": 4000})."""

    def build(seed: int = 0, **sizes: int) -> bytes:
        drawn, buffer = random.Random(seed), io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, size in sizes.items():
                member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
                archive.writestr(member, drawn.randbytes(size))
        return buffer.getvalue()

    return build


@pytest.fixture
def batch(zipped: Callable[..., bytes]) -> bytes:
    """A reference batch in miniature."""
    return zipped(**{"arr_0.npy": 9000, "mu.npy": 100})


@pytest.fixture
def other_batch(zipped: Callable[..., bytes]) -> bytes:
    """Another one, of the same size."""
    return zipped(seed=1, **{"arr_0.npy": 9000, "mu.npy": 100})


class Project:
    """A folder with one artefact to fetch."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.folder = root / "artefacts"
        self.spec = ArtefactSpec(
            name="stand-in",
            title="a stand-in",
            kind="reference",
            file="stand-in.npz",
            urls=(),
            sha256=None,
            bytes=None,
            about_bytes=9000,
            licence="none",
        )

    @property
    def path(self) -> Path:
        return self.layout.artefact(self.spec)

    @property
    def part(self) -> Path:
        return self.folder / ".stand-in.npz.part"

    @property
    def lock(self) -> dict:
        return read_lock(self.layout.artefact_lock)

    def set(self, *urls: str, **changes: object) -> None:
        self.spec = dataclasses.replace(self.spec, urls=urls or self.spec.urls, **changes)

    def fetch(self, **options):
        return fetch_artefact(self.spec, self.layout, **{"transfer": FAST} | options)

    def files(self) -> list[str]:
        """Everything in the artefact and config folders, hidden files too."""
        folders = (self.folder, self.layout.artefact_lock.parent)
        return sorted(path.name for one in folders if one.is_dir() for path in one.iterdir())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
