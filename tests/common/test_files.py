import contextlib
import errno
import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import (
    atomic_path,
    digest,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from hqdm_bench.common.tensors import write_tensors
from hqdm_bench.distill import History
from hqdm_bench.sample import Samples, write_shard


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


HALF = """
import sys
from pathlib import Path
from hqdm_bench.common.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing result.json, and the name of its temporary file."""
    command = [sys.executable, "-c", HALF, tmp_path / "result.json"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_what_a_killed_writer_leaves_is_hidden_and_goes_with_the_next_write(writer, tmp_path):
    process, temporary = writer
    assert temporary.startswith(".")
    write_json(tmp_path / "result.json", 1)
    assert sorted(os.listdir(tmp_path)) == [temporary, "result.json"]  # its writer is alive
    process.kill()
    process.wait()
    assert (tmp_path / temporary).read_text() == "half"
    write_json(tmp_path / "other.json", 2)
    write_json(tmp_path / "result.json.json", 2)
    assert temporary in os.listdir(tmp_path)
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "result.json", float("inf"))
    assert temporary in os.listdir(tmp_path)
    write_json(tmp_path / "result.json", 3)
    assert sorted(os.listdir(tmp_path)) == ["other.json", "result.json", "result.json.json"]


def test_the_file_of_a_writer_that_cannot_be_seen_goes_after_a_day(writer, tmp_path):
    process, temporary = writer
    process.kill()
    process.wait()
    name = temporary.split(".")
    name[2] = f"{int(name[2], 16) ^ 1:08x}"  # another machine, or another container
    foreign = (tmp_path / temporary).rename(tmp_path / ".".join(name))
    write_json(tmp_path / "result.json", 1)
    assert foreign.exists()
    long_ago = foreign.stat().st_mtime - 86500
    os.utime(foreign, (long_ago, long_ago))
    write_json(tmp_path / "result.json", 2)
    assert os.listdir(tmp_path) == ["result.json"]


def write_samples(path, count):
    index = np.arange(count, dtype=np.int64)
    images = np.zeros((count, 32, 32, 3), np.uint8)
    write_shard(path, Samples(images, index, index, np.zeros((count, 3, 8, 8), np.float32)))


WRITERS = {
    "text.md": lambda path, size: write_text(path, "x" * size),
    "tensors.safetensors": lambda path, size: write_tensors(
        path, {"x": torch.zeros(size // 4)}, {}
    ),
    "shard.npz": lambda path, size: write_samples(path, size // 3072),
    "history.csv": lambda path, size: History((1, 501), [0.0] * (size // 8)).write(path),
}


def temporary_of(target):
    with contextlib.suppress(KeyError), atomic_path(target) as temporary:
        raise KeyError
    return temporary


@pytest.mark.parametrize("size", [3072, 1_000_000])  # fails when it is closed; when it is written
@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_says_that_the_disk_is_full(tmp_path, name, size):
    target = tmp_path / name
    target.write_text("old")
    temporary_of(target).symlink_to("/dev/full")
    with pytest.raises(BenchError, match=f"no space left while writing .*{name}; free some"):
        WRITERS[name](target, size)
    assert os.listdir(tmp_path) == [name]
    assert target.read_text() == "old"


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_says_that_a_file_may_not_be_so_large(tmp_path, name):
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))
    try:
        with pytest.raises(BenchError, match=f"cannot write .*{name}: File too large"):
            WRITERS[name](tmp_path / name, 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "result.json").mkdir()
    with pytest.raises(BenchError, match="cannot write .*result.json: Is a directory"):
        write_json(tmp_path / "result.json", 1)
    assert os.listdir(tmp_path) == ["result.json"]
