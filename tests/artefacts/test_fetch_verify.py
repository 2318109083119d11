"""What is trusted: published digests, recorded digests, formats."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from hqdm_bench.artefacts import Record, read_lock, verify_artefact
from hqdm_bench.artefacts.faults import Refused
from hqdm_bench.artefacts.formats import check_format, markup_page
from hqdm_bench.artefacts.lockfile import record
from hqdm_bench.common.errors import BenchError

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(100)
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_first_use_is_recorded_and_later_ones_held_to_it(project, server, answer, batch):
    url = server.put("/f", answer(batch))
    project.set(url)
    assert project.fetch().recorded
    assert project.lock == {"stand-in": Record(sha256(batch), len(batch), url)}
    again = project.fetch()
    assert (again.how, again.recorded, len(server.asked)) == ("present", False, 1)
    project.path.unlink()
    assert not project.fetch().recorded
    assert len(server.asked) == 2


def test_another_file_than_the_recorded_one(project, server, answer, batch, other_batch):
    project.set(server.put("/f", answer(batch)))
    project.fetch()
    project.path.unlink()
    server.put("/f", answer(other_batch))
    with pytest.raises(BenchError) as caught:
        project.fetch()
    text, lock = str(caught.value), project.layout.artefact_lock
    assert f"its sha256 is {sha256(other_batch)}, {lock} says {sha256(batch)}" in text
    assert f"changed on purpose, delete the entry stand-in from {lock} and run again" in text
    assert project.files() == ["artefacts.lock.json"]
    lock.unlink()
    assert project.fetch().sha256 == sha256(other_batch)


def test_wrong_file_in_place_is_renamed(project, server, answer, batch):
    project.set(server.put("/f", answer(batch)), sha256=sha256(batch), bytes=len(batch))
    project.folder.mkdir()
    project.path.write_bytes(batch[:-5])
    with pytest.raises(BenchError, match=rf"truncated: {len(batch) - 5} of {len(batch)} bytes"):
        verify_artefact(project.spec, project.layout)
    assert project.files() == ["stand-in.npz.refused"]
    project.path.write_bytes(batch[:-5] + bytes(5))
    with pytest.raises(BenchError, match=r"It was renamed to .*stand-in.npz.refused"):
        project.fetch()
    assert project.files() == ["stand-in.npz.refused"]
    assert server.asked == []
    assert project.fetch().how == "downloaded"


def test_file_put_there_by_hand_is_checked_and_recorded(project, batch):
    with pytest.raises(BenchError, match=r"does not exist; `hqdm-bench fetch stand-in` gets it"):
        verify_artefact(project.spec, project.layout)
    project.folder.mkdir()
    project.path.write_bytes(batch)
    before = project.path.stat().st_mtime_ns
    assert verify_artefact(project.spec, project.layout).recorded
    assert project.lock["stand-in"] == Record(sha256(batch), len(batch), None)
    assert project.path.stat().st_mtime_ns == before


def test_lock_is_sorted_and_keeps_the_first_record(tmp_path):
    path = tmp_path / "config" / "lock.json"
    first = Record("a" * 64, 1, None)
    assert record(path, "two", first) == first
    assert record(path, "two", Record("b" * 64, 2, "http://x")) == first
    record(path, "one", first)
    assert list(json.loads(path.read_text())) == ["one", "two"]
    assert [one.name for one in path.parent.iterdir()] == ["lock.json"]


def test_records_made_at_once_all_land(tmp_path):
    path = tmp_path / "lock.json"
    with ThreadPoolExecutor(8) as pool:
        done = pool.map(lambda i: record(path, f"n{i:02}", Record("a" * 64, i, None)), range(24))
        assert len(list(done)) == 24
    assert [found.bytes for found in read_lock(path).values()] == list(range(24))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"a": {"sha256": "x", "bytes": 1, "url": null}}',
        '{"a": {"sha256": "' + "0" * 64 + '", "bytes": "1", "url": null}}',
        '{"a": {"bytes": 1}}',
    ],
)
def test_damaged_lock_is_said_and_kept(project, server, answer, batch, text):
    project.set(server.put("/f", answer(batch)))
    lock = project.layout.artefact_lock
    lock.parent.mkdir()
    lock.write_text(text)
    with pytest.raises(BenchError, match=r"lock.json is not a list .* take it back from git"):
        project.fetch()
    assert lock.read_text() == text
    assert project.files() == ["artefacts.lock.json"]


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("checkpoint", {"archive/data.pkl": 9, "archive/data/0": 9}),
        ("checkpoint", {"model.ckpt": 9, "README": 2}),
        ("weights", {"weights/data.pkl": 9}),
        ("reference", {"arr_0.npy": 9, "mu.npy": 9}),
        ("images", {"church_train_lmdb/data.mdb": 9, "church_train_lmdb/lock.mdb": 1}),
        ("images", {"a/0.JPEG": 9}),
        ("images", {"0.webp": 9}),
    ],
)
def test_formats_that_fit(tmp_path, zipped, kind, members):
    path = tmp_path / "file"
    path.write_bytes(zipped(**members))
    check_format(kind, path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Refused, match="it is a truncated or damaged zip archive"):
        check_format(kind, path)


@pytest.mark.parametrize("kind", ["checkpoint", "weights"])
def test_old_torch_files_fit_by_their_first_byte(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(LEGACY)
    check_format(kind, path)


@pytest.mark.parametrize(
    ("kind", "members", "message"),
    [
        ("checkpoint", {"a.ckpt": 1, "b.ckpt": 1}, "a zip archive of a.ckpt, b.ckpt, not a torch"),
        ("checkpoint", {"arr_0.npy": 1}, "a zip archive of arr_0.npy, not a torch checkpoint"),
        ("weights", {"model.ckpt": 1}, "a zip archive of model.ckpt, not a torch state dict"),
        ("reference", {"arr_1.npy": 1}, "a zip archive of arr_1.npy, not an .npz file with an"),
        ("images", {f"{i}.txt": 1 for i in range(5)}, r"0.txt, 1.txt, 2.txt, 3.txt, \.\.\., not"),
    ],
)
def test_archives_of_something_else(tmp_path, zipped, kind, members, message):
    path = tmp_path / "file"
    path.write_bytes(zipped(**members))
    with pytest.raises(Refused, match=message):
        check_format(kind, path)


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("checkpoint", b"hello", "it starts with 68 65 6c 6c 6f"),
        ("reference", LEGACY, "not an .npz file with an array arr_0; it starts with 80 02"),
        ("images", LEGACY, "it starts with 80 02"),
        ("weights", b"", "it starts with nothing"),
        ("weights", EMPTY_ZIP, "a zip archive of nothing"),
        ("weights", b"\xef\xbb\xbf\n <HTML>", "it is an HTML page, not a torch state dict"),
        ("images", b"<Error><Message>No Such\x1b Key</Message>", "titled 'No Such Key'"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, kind, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(Refused, match=message):
        check_format(kind, path)


def test_titles_are_short():
    page = markup_page(b"<!doctype html><title>" + b"x" * 500 + b"</title>")
    assert page == f"an HTML page titled '{'x' * 80}'"
    assert markup_page(b"PK\x03\x04<html>") is None
