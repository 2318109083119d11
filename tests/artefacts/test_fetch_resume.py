"""Partial downloads: continued when they can be, started afresh when they must be."""

import dataclasses
import json

import pytest

from hqdm_bench.common.errors import BenchError


@pytest.fixture
def begun(project, server, answer, batch):
    """A project whose first run got 4000 bytes and gave up."""
    project.set(server.put("/f", answer(batch, cut=4000, ranges=False)))
    with pytest.raises(BenchError):
        project.fetch()
    assert project.part.read_bytes() == batch[:4000]
    server.asked.clear()
    return project


def test_only_the_rest_is_asked_for(begun, server, answer, batch):
    server.put("/f", answer(batch))
    begun.fetch()
    assert begun.path.read_bytes() == batch
    assert server.ranges() == ["bytes=4000-"]
    assert server.asked[0][1]["If-Range"] == '"one"'
    assert begun.files() == ["artefacts.lock.json", "stand-in.npz"]


def test_progress_resets_the_count_of_failures(project, server, answer, batch):
    project.set(server.put("/f", answer(batch, cut=1000)))  # ten connections, two retries
    project.fetch()
    assert project.path.read_bytes() == batch
    assert server.ranges() == [None, *(f"bytes={n}-" for n in range(1000, len(batch), 1000))]


def test_server_that_ignores_ranges_starts_afresh(begun, server, answer, batch):
    server.put("/f", answer(batch, ranges=False))
    begun.fetch()
    assert begun.path.read_bytes() == batch
    assert server.ranges() == ["bytes=4000-"]


def test_changed_file_starts_afresh(begun, server, answer, other_batch):
    server.put("/f", answer(other_batch, etag='"two"'))
    begun.fetch()
    assert begun.path.read_bytes() == other_batch
    assert server.ranges() == ["bytes=4000-"]  # If-Range made the server send all of it at once


def test_server_that_continues_another_file_is_not_believed(begun, server, answer, other_batch):
    class Careless(answer):
        def _start(self, request):
            return super()._start(_without_if_range(request))

    server.put("/f", Careless(other_batch, etag='"two"'))
    begun.fetch()
    assert begun.path.read_bytes() == other_batch
    assert server.ranges() == ["bytes=4000-", None]


@pytest.mark.parametrize("wrong", ["bytes 3000-{last}/{total}", "bytes 4000-{last}/9", "chunks"])
def test_rest_that_does_not_fit_is_not_appended(begun, server, answer, batch, wrong):
    class Confused(answer):
        def _head(self, request, status, extra, length):
            if status == 206:
                last, total = len(batch) - 1, len(batch)
                extra = {"Content-Range": wrong.format(last=last, total=total)}
            super()._head(request, status, extra, length)

    server.put("/f", Confused(batch))
    begun.fetch()
    assert begun.path.read_bytes() == batch
    assert server.ranges() == ["bytes=4000-", None]


def _without_if_range(request):
    request.headers.replace_header("If-Range", '"two"') if "If-Range" in request.headers else None
    return request


def test_changing_tag_never_mixes_two_versions(project, server, answer, batch, other_batch):
    first, second = answer(batch, cut=6000), answer(other_batch, etag='"two"', cut=5000)
    project.set(server.put("/f", first, second, dataclasses.replace(second, cut=None)))
    project.fetch()
    assert project.path.read_bytes() == other_batch
    assert server.ranges() == [None, "bytes=6000-", "bytes=5000-"]


def test_shorter_file_with_the_same_tag(begun, server, answer, zipped):
    short = zipped(**{"arr_0.npy": 100})
    server.put("/f", answer(short))  # answers 416 to the range
    begun.fetch()
    assert begun.path.read_bytes() == short
    assert server.ranges() == ["bytes=4000-", None]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_without_validator_nothing_is_continued(project, server, answer, batch, headers):
    cut = answer(batch, etag=None, headers=headers, cut=4000)
    project.set(server.put("/f", cut, dataclasses.replace(cut, cut=None)))
    project.fetch()
    assert project.path.read_bytes() == batch
    assert server.ranges() == [None, None]


def test_date_is_a_validator(project, server, answer, batch):
    date = "Thu, 01 Oct 2015 00:00:00 GMT"
    cut = answer(batch, etag=None, headers={"Last-Modified": date}, cut=4000, ranges=False)
    project.set(server.put("/f", cut))
    with pytest.raises(BenchError):
        project.fetch()
    assert json.loads(project.part.with_name(".stand-in.npz.part.json").read_text()) == {
        "url": server.url("/f"),
        "final_url": server.url("/f"),
        "validator": date,
        "total": len(batch),
    }


def test_another_mirror_starts_afresh(begun, server, answer, batch, other_batch):
    begun.set(server.put("/g", answer(other_batch)))
    begun.fetch()
    assert begun.path.read_bytes() == other_batch
    assert server.ranges() == [None]


def test_mirror_of_the_part_comes_first(begun, server, answer, batch, other_batch):
    begun.set(server.put("/other", answer(other_batch)), server.put("/f", answer(batch)))
    begun.fetch()
    assert begun.path.read_bytes() == batch
    assert server.ranges() == ["bytes=4000-"]


@pytest.mark.parametrize("fault", [{"status": 404}, {"body": b"<html></html>"}, {"status": 500}])
def test_error_does_not_cost_what_has_arrived(begun, server, answer, batch, fault):
    server.put("/f", answer(**{"etag": None} | fault))
    with pytest.raises(BenchError, match="4000 bytes are kept"):
        begun.fetch()
    server.put("/f", answer(batch))
    begun.fetch()
    assert server.ranges()[-1] == "bytes=4000-"


@pytest.mark.parametrize("sidecar", [None, "", "[]", '{"url": 1}'])
def test_part_of_unknown_origin_is_not_continued(begun, server, answer, batch, sidecar):
    path = begun.part.with_name(".stand-in.npz.part.json")
    path.unlink()
    if sidecar is not None:
        path.write_text(sidecar)
    server.put("/f", answer(batch))
    begun.fetch()
    assert begun.path.read_bytes() == batch
    assert server.ranges() == [None]


@pytest.mark.parametrize("offline", [False, True])
def test_arrived_whole_but_not_named_yet(begun, server, batch, offline):
    begun.part.write_bytes(batch)  # killed between the last byte and the rename
    assert begun.fetch(offline=offline).how == "downloaded"
    assert begun.path.read_bytes() == batch
    assert server.asked == []


def test_damaged_part_is_downloaded_again_once(begun, server, answer, batch, caplog):
    begun.set(sha256=_sha256(batch))
    begun.part.write_bytes(bytes(4000))
    server.put("/f", answer(batch))
    begun.fetch()
    assert begun.path.read_bytes() == batch
    assert server.ranges() == ["bytes=4000-", None]
    assert "downloading it again from the start" in caplog.text


def test_damage_on_every_download_ends(project, server, answer, batch, other_batch):
    project.set(server.put("/f", answer(other_batch, cut=4000)), sha256=_sha256(batch))
    with pytest.raises(BenchError, match=f"{_sha256(other_batch)}.* says {_sha256(batch)}"):
        project.fetch()
    assert len(server.asked) == 6  # three connections each for two downloads
    assert project.files() == []


def _sha256(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()
