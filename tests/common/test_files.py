import errno
import json
import os

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import atomic_path, digest, read_json, sha256_of, write_json


def test_atomic_path_leaves_nothing_behind_on_failure(tmp_path):
    target = tmp_path / "deep" / "result.json"
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []


def test_atomic_path_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["result.json"]


def test_full_disk_is_one_clear_message(tmp_path):
    with pytest.raises(BenchError, match="no space left while writing .*result.json"):  # noqa: SIM117
        with atomic_path(tmp_path / "result.json"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BenchError, match="cannot write .*file/result.json"),
        atomic_path(tmp_path / "file" / "result.json"),
    ):
        pass


def test_json_round_trip_and_refusals(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"b": 1, "a": [1.5, None, "±"]})
    assert read_json(path) == {"b": 1, "a": [1.5, None, "±"]}
    assert list(json.loads(path.read_text())) == ["b", "a"]
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"x": float("nan")})
    assert read_json(path)["b"] == 1
    with pytest.raises(BenchError, match="does not exist; `snakemake"):
        read_json(tmp_path / "absent.json")
    path.write_text("{")
    with pytest.raises(BenchError, match="not valid JSON"):
        read_json(path)


def test_digest_ignores_key_order_but_no_value():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert len(digest([])) == 16


def test_sha256_of_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
