"""Every fault of a server: its message, and that nothing a later run would trust is left."""

import dataclasses
import errno
import hashlib
import io
import shutil
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from hqdm_bench.artefacts import Transfer
from hqdm_bench.common.errors import BenchError

PAGE = b"<!DOCTYPE html>\n<html><head><title>Site &amp; down\n now</title></head></html>"
STORAGE = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'


def quick(**changes):
    return dataclasses.replace(Transfer(2, 0.3, 2, 0.01, 0.5), **changes)


def refused(project, **options):
    with pytest.raises(BenchError) as caught:
        project.fetch(**options)
    assert not project.path.exists()
    assert project.lock == {}
    return str(caught.value)


def assert_next_run_is_good(project, server, answer, batch):
    """After the server is mended the same command brings the right bytes."""
    for path in server.answers:
        server.put(path, answer(batch, etag='"mended"'))
    assert project.fetch().how == "downloaded"
    assert project.path.read_bytes() == batch
    assert project.files() == ["artefacts.lock.json", "stand-in.npz"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 404}, "/f: answered 404 Not Found."),
        ({"status": 403}, "/f: answered 403 Forbidden."),
        ({"status": 500}, "/f: answered 500 Internal Server Error (3 failures in a row)"),
        ({"status": 429}, "/f: answered 429 Too Many Requests (3 failures in a row)"),
        (
            {"status": 503, "headers": {"Retry-After": "7200"}},
            "/f: answered 503 Service Unavailable and asks to come back in 7200 s",
        ),
        ({"body": PAGE}, "sent an HTML page titled 'Site & down now' instead of the file"),
        ({"body": STORAGE}, "sent an XML document titled 'AccessDenied' instead of the file"),
        (
            {"body": b"Not here", "headers": {"Content-Type": "text/html; charset=utf-8"}},
            "sent a text/html page instead of the file",
        ),
        ({"body": b"junk" * 99}, "not an .npz file with an array arr_0; it starts with 6a 75 6e"),
        ({"body": b""}, "it starts with nothing"),
        ({"headers": {"Content-Encoding": "gzip"}}, "sent the file in another encoding (gzip)"),
        ({"status": 302, "headers": {"Location": "/f"}}, "redirected more than 5 times"),
        ({"status": 302, "headers": {"Location": "ftp://a/f"}}, "redirected to ftp://a/f, which"),
        ({"status": 204}, "answered 204 No Content"),
        ({"status": 206}, "answered 206 Partial Content"),
    ],
)
def test_fault_leaves_nothing(project, server, answer, batch, fault, message):
    project.set(server.put("/f", answer(**{"body": batch} | fault)))
    text = refused(project)
    assert message in text
    assert "'stand-in' could not be fetched. http://127.0.0.1" in text
    assert f"put it at {project.path} and run `hqdm-bench fetch stand-in` to check it" in text
    assert "`hqdm-bench fetch stand-in --from PATH` (or a URL)" in text
    assert "\n" not in text
    assert project.files() == []
    assert_next_run_is_good(project, server, answer, batch)


def test_truncated_is_named_and_its_part_never_trusted(project, server, answer, batch):
    project.set(server.put("/f", answer(batch, cut=4000, ranges=False)))
    text = refused(project)
    assert f"truncated: the connection ended after 4000 bytes of {len(batch)} bytes" in text
    assert "4000 bytes are kept, the next run goes on there" in text
    assert project.files() == [".stand-in.npz.part", ".stand-in.npz.part.json"]
    assert_next_run_is_good(project, server, answer, batch)


def test_truncated_without_announced_size(project, server, answer, batch):
    chunked = {"Transfer-Encoding": "chunked"}
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(batch), batch)
    project.set(server.put("/f", answer(body, headers=chunked, length="", cut=4000, ranges=False)))
    assert "truncated: the connection ended after" in refused(project)
    server.put("/f", answer(body, headers=chunked, length="", ranges=False))
    assert project.fetch().bytes == len(batch)
    assert project.path.read_bytes() == batch


@pytest.mark.parametrize("etag", ['"one"', None])
def test_too_small_announced_size_is_a_truncated_archive(project, server, answer, batch, etag):
    project.set(server.put("/f", answer(batch, length="5000", etag=etag)))
    assert "it is a truncated or damaged zip archive" in refused(project)
    assert project.files() == []
    assert_next_run_is_good(project, server, answer, batch)


@pytest.mark.parametrize("change", [-1000, 1000])
def test_announced_size_other_than_the_catalogue(project, server, answer, batch, change):
    project.set(server.put("/f", answer(batch)), bytes=len(batch) + change)
    text = refused(project)
    assert f"announces {len(batch)} bytes, {len(batch) + change} are expected" in text
    project.set(server.put("/g", answer(batch, length="", etag=None)))  # nothing is announced
    text = refused(project)
    assert ("it is truncated:" in text) == (change > 0)
    assert str(len(batch) + change) in text
    assert project.files() == []


def test_wrong_bytes_are_a_mismatch_with_both_digests(project, server, answer, batch, other_batch):
    sha256 = hashlib.sha256(batch).hexdigest()
    project.set(server.put("/f", answer(other_batch)), sha256=sha256, bytes=len(batch))
    text = refused(project)
    assert hashlib.sha256(other_batch).hexdigest() in text
    assert f"{project.layout.root / 'config' / 'artefacts.yaml'} says {sha256}" in text
    assert "correct the sha256 of stand-in in" in text
    assert project.files() == []
    assert len(server.asked) == 1  # the same bytes again would not help
    server.put("/f", answer(batch))
    assert project.fetch().sha256 == sha256
    assert project.lock == {}  # a published digest needs no record


def test_stalled_server(project, server, answer, batch):
    gate = threading.Event()
    project.set(server.put("/f", answer(batch, cut=3000, gate=gate, ranges=False)))
    assert "stalled: nothing was sent for 0.3 s (3 failures in a row)" in refused(project)
    assert_next_run_is_good(project, server, answer, batch)


def test_server_that_never_answers(project, server, answer, batch):
    gate = threading.Event()
    server.answer = lambda request: SimpleNamespace(send=lambda _: gate.wait(5))
    project.set(server.url("/f"))
    text = refused(project, transfer=quick(retries=0))
    gate.set()
    assert "stalled: nothing was sent for 0.3 s (1 failures in a row)" in text
    assert project.files() == []


def test_unreachable_server_and_bad_urls(project):
    project.set("http://127.0.0.1:1/f", "http://", "gopher://x/f", "file:///nowhere/f")
    text = refused(project)
    assert "http://127.0.0.1:1/f: Connection refused (3 failures in a row)" in text
    assert "gopher://x/f: gopher is not supported; use http, https, file or a path" in text
    assert "file:///nowhere/f: there is no such file" in text
    assert project.files() == []


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429])
def test_temporary_errors_are_retried(project, server, answer, batch, status, caplog):
    project.set(server.put("/f", answer(b"", status), answer(b"", status), answer(batch)))
    assert project.fetch().how == "downloaded"
    assert len(server.asked) == 3
    assert f"answered {status}" in caplog.text
    assert "trying again in 0.02 s" in caplog.text  # twice the first wait


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept(project, server, answer, batch, monkeypatch, as_date):
    slept = []
    monkeypatch.setattr("hqdm_bench.artefacts.transfer.time.sleep", slept.append)
    value = formatdate(time.time() + 30, usegmt=True) if as_date else "30"
    busy = answer(b"", 503, headers={"Retry-After": value})
    project.set(server.put("/f", busy, answer(batch)))
    project.fetch(transfer=quick(longest_wait=60.0))
    assert len(slept) == 1
    assert 28 < slept[0] <= 30


def test_next_mirror_is_tried(project, server, answer, batch, caplog):
    gone, page = server.put("/gone", answer(b"", 404)), server.put("/page", answer(PAGE))
    project.set(gone, page, server.put("/good", answer(batch)))
    project.fetch()
    assert [path for path, _ in server.asked] == ["/gone", "/page", "/good"]
    assert project.lock["stand-in"].url == server.url("/good")


def test_all_mirrors_are_listed_with_their_reasons(project, server, answer):
    project.set(server.put("/a", answer(b"", 410)), server.put("/b", answer(PAGE)))
    text = refused(project)
    assert f"{server.url('/a')}: answered 410 Gone; {server.url('/b')}: sent an HTML page" in text


def test_redirects_are_followed_and_their_secrets_not_recorded(project, server, answer, batch):
    server.put("/real", answer(batch))
    server.put("/real?signature=secret", answer(batch))
    there = answer(b"", 302, headers={"Location": "/real?signature=secret"})
    project.set(server.put("/f", there))
    project.fetch()
    assert project.lock["stand-in"].url == server.url("/real")


def test_downgrade_to_http_is_refused(project, server, answer, batch, monkeypatch):
    import requests

    def redirecting(session, url, **_):
        response = requests.Response()
        response.status_code, response.url, response.raw = 302, url, io.BytesIO()
        response.headers["Location"] = server.put("/f", answer(batch))
        return response

    monkeypatch.setattr(requests.Session, "get", redirecting)
    project.set("https://example.org/f")
    assert "redirected from https to the unprotected http://127.0.0.1" in refused(project)
    assert server.asked == []


def test_certificate_errors_are_not_retried(project, monkeypatch):
    import requests

    calls = []

    def failing(session, url, **_):
        calls.append(url)
        raise requests.exceptions.SSLError("certificate verify failed")

    monkeypatch.setattr(requests.Session, "get", failing)
    project.set("https://example.org/f")
    assert "https://example.org/f: certificate verify failed." in refused(project)
    assert len(calls) == 1


def test_disk_is_checked_before_the_first_byte(project, server, answer, batch, monkeypatch):
    needed = int(len(batch) * 1.05)
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    project.set(server.put("/f", answer(batch)))
    text = refused(project)
    assert f"{needed} bytes are needed in {project.folder}, {needed - 1} bytes are free" in text
    assert project.files() == []
    usage.free += 1
    assert project.fetch().how == "downloaded"


def test_planned_size_counts_where_none_is_announced(project, server, answer, batch, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    project.set(server.put("/f", answer(batch, length="")), about_bytes=2 * 10**6)
    assert "2.1 MB are needed" in refused(project)


def test_disk_that_fills_keeps_the_part(project, server, answer, batch, monkeypatch):
    from hqdm_bench.artefacts.part import FileIO

    class Small(FileIO):
        def write(self, data):
            if self.tell() + len(data) > 4500:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    project.set(server.put("/f", answer(batch)))
    with monkeypatch.context() as patch:
        patch.setattr("hqdm_bench.artefacts.locking.FileIO", Small)
        text = refused(project)
    assert f"no space left for {project.path}: 4000 bytes have arrived and are kept in" in text
    assert len(server.asked) == 1
    assert project.part.read_bytes() == batch[:4000]
    project.fetch()
    assert project.path.read_bytes() == batch
    assert server.ranges() == [None, "bytes=4000-"]
