"""Files given by path, offline runs, and the look without reading."""

import errno
import os
from pathlib import Path

import pytest

from hqdm_bench.artefacts import artefact_status, reachable, suite_artefacts
from hqdm_bench.catalogue import load_catalogue
from hqdm_bench.common.errors import BenchError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path, batch):
    path = tmp_path / "my copy.npz"
    path.write_bytes(batch)
    path.chmod(0o444)
    return path


@pytest.fixture
def no_network(monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.parametrize("as_url", [False, True])
def test_local_file_is_linked(project, copy, batch, no_network, as_url):
    source = copy.as_uri() if as_url else str(copy)
    done = project.fetch(source=source, offline=True)
    assert (done.how, done.recorded) == ("linked", True)
    assert project.path.samefile(copy)
    assert project.lock["stand-in"].url is None  # nobody else has that path
    assert project.files() == ["artefacts.lock.json", "stand-in.npz"]
    assert project.fetch(source=source).how == "present"


def test_link_to_a_file_brings_the_file(project, copy):
    link = copy.with_name("link")
    link.symlink_to(copy)
    project.fetch(source=str(link))
    assert not project.path.is_symlink()


def test_other_file_systems_get_a_copy(project, copy, batch, monkeypatch):
    def cross(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", cross)
    assert project.fetch(source=str(copy)).how == "copied"
    assert project.path.read_bytes() == batch
    assert not project.path.samefile(copy)
    assert project.path.stat().st_mode & 0o200


def test_copy_that_does_not_fit(project, copy, monkeypatch):
    def cross(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", cross)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(BenchError, match="no space left while copying"):
        project.fetch(source=str(copy))
    assert project.files() == []


def test_wrong_local_file_is_refused_and_left_alone(project, copy, batch):
    project.set(sha256="0" * 64)
    with pytest.raises(BenchError, match=rf"my copy.npz: its sha256 is .* says {'0' * 64}"):
        project.fetch(source=str(copy))
    assert copy.read_bytes() == batch
    assert project.files() == []


def test_folders_are_refused_with_the_way_out(project, tmp_path):
    (tmp_path / "church").mkdir()
    with pytest.raises(BenchError, match=r"it is a folder, .* zip -0 -r \.\./church.zip \.\) and"):
        project.fetch(source=str(tmp_path / "church"))
    project.path.mkdir(parents=True)
    with pytest.raises(BenchError, match="is a folder; the artefact is one file"):
        project.fetch()


def test_file_urls_are_mirrors(project, copy, no_network):
    project.set(copy.as_uri())
    assert project.fetch(offline=True).how == "linked"
    assert project.lock["stand-in"].url == copy.as_uri()
    project.path.unlink()
    project.set(copy.as_uri().replace("file://", "file://elsewhere"))
    with pytest.raises(BenchError, match="of the form file:///folder/file, not file://elsewhere/"):
        project.fetch()


def test_from_url_replaces_the_mirrors(project, server, answer, batch):
    project.set(server.put("/catalogue", answer(batch)))
    url = server.put("/mine?token=secret", answer(batch))
    project.fetch(source=url)
    assert [path for path, _ in server.asked] == ["/mine?token=secret"]
    assert project.lock["stand-in"].url == server.url("/mine")


def test_offline_says_what_to_do(project, no_network):
    project.set("http://a.org/f", "http://b.org/f")
    with pytest.raises(BenchError) as caught:
        project.fetch(offline=True)
    text = str(caught.value)
    assert "'stand-in' is missing and nothing is downloaded with --offline" in text
    assert "Get a stand-in, about 9000 bytes, from http://a.org/f or http://b.org/f" in text
    assert f"put it at {project.path} and run `hqdm-bench fetch stand-in --offline`" in text
    assert project.files() == []
    with pytest.raises(BenchError, match=r"from http://c.org; put"):
        project.fetch(offline=True, source="http://c.org")


def test_offline_mentions_a_part(project):
    project.set("http://a.org/f")
    project.folder.mkdir()
    project.part.write_bytes(bytes(7))
    with pytest.raises(BenchError, match=r"missing \(7 bytes of it are in .*\.part\)"):
        project.fetch(offline=True)


def test_dead_link_in_place(project):
    project.folder.mkdir()
    project.path.symlink_to("gone")
    with pytest.raises(BenchError, match="is a link to gone, which does not exist"):
        project.fetch()


def test_folder_without_permission(project, copy, monkeypatch):
    def deny(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", deny)
    with pytest.raises(BenchError, match=rf"cannot read or write {project.path}: Permission deni"):
        project.fetch(source=str(copy))


def test_file_in_place_of_the_folder(project, copy):
    project.folder.write_text("")
    with pytest.raises(BenchError, match=r"cannot read or write .*(File exists|Not a directory)"):
        project.fetch(source=str(copy))


def test_status(project, batch):
    def status():
        return artefact_status(project.spec, project.path, project.lock)

    assert status() == "missing"
    project.folder.mkdir()
    project.part.write_bytes(b"")
    assert status() == "missing"
    project.part.write_bytes(batch[:9])
    assert status() == "partial"
    project.path.write_bytes(batch)
    assert status() == "present"
    project.fetch()
    assert status() == "verified"
    project.path.write_bytes(batch[:-1])
    assert status() == "present"
    project.set(sha256="0" * 64, bytes=len(batch) - 1)
    assert status() == "verified"


def test_reachable(project, server, answer, batch, copy):
    gone = server.put("/gone", answer(b"", 404))
    page = server.put("/page", answer(b"<html>", headers={"Content-Type": "text/html"}))
    busy = server.put("/busy", answer(b"", 503))
    project.set(gone, page, busy, "http://127.0.0.1:1/f", "gopher://x", "file:///nowhere/f")
    assert reachable(project.spec, 1) is None
    good = server.put("/good", answer(batch))
    project.set(gone, good)
    assert reachable(project.spec, 1) == good
    plain = server.put("/plain", answer(batch, ranges=False))
    project.set(plain)
    assert reachable(project.spec, 1) == plain
    project.set(copy.as_uri())
    assert reachable(project.spec, 1) == copy.as_uri()


def test_artefacts_of_suites():
    catalogue = load_catalogue(ROOT)
    names = [spec.name for spec in suite_artefacts(catalogue, catalogue.suite("paper"))]
    assert {"ldm4-imagenet", "ldm8-churches", "adm-bedroom256", "inception"} < set(names)
    assert names == [name for name in catalogue.artefacts if name in names]
    assert suite_artefacts(catalogue, catalogue.suite("mini")) == []
