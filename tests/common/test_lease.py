"""GPU leases with names of GPUs that do not exist: the locks are real, the devices are not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.lease import gpu_names, lease, lock_folder

NAMES = ["GPU-aaaa", "GPU-bbbb"]
# Holds a lease for some seconds; writes when it had which GPU.
HOLDER = """
import sys, time
from pathlib import Path
from hqdm_bench.common.lease import lease

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
with lease(["GPU-aaaa", "GPU-bbbb"], folder) as index:
    print(index, time.monotonic(), flush=True)
    time.sleep(seconds)
    end = time.monotonic()  # before the release: two holders of one GPU would show as an overlap
print(end, flush=True)
"""


def start_holder(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_leases_side_by_side_get_different_gpus(tmp_path):
    with lease(NAMES, tmp_path) as first:
        with lease(NAMES, tmp_path) as second:
            assert (first, second) == (0, 1)
        with lease(NAMES, tmp_path) as again:
            assert again == 1
    with lease(NAMES, tmp_path) as after:
        assert after == 0


def test_a_lease_knows_a_gpu_by_its_name_not_its_index(tmp_path):
    """A job that sees both GPUs in the other order, and one that sees the second only."""
    with lease(NAMES, tmp_path), lease(NAMES[::-1], tmp_path) as index:
        assert index == 0
    with lease(["GPU-bbbb"], tmp_path), lease(NAMES[::-1], tmp_path) as index:
        assert index == 1


def test_three_processes_on_two_gpus_never_share_one(tmp_path):
    holders = [start_holder(tmp_path, 0.6) for _ in range(3)]
    spans, messages = {}, []
    for number, holder in enumerate(holders):
        output, errors = holder.communicate(timeout=30)
        assert holder.returncode == 0, errors
        index, start, end = output.split()
        spans[number] = (int(index), float(start), float(end))
        messages.append(errors)
    for one, (index, start, end) in spans.items():
        for other, (other_index, other_start, other_end) in spans.items():
            if one != other and index == other_index:
                assert end <= other_start or other_end <= start
    assert {index for index, _, _ in spans.values()} == {0, 1}


def test_who_holds_the_gpus_is_said_once(tmp_path, capsys):
    holder = start_holder(tmp_path, 1.5)
    index = int(holder.stdout.readline().split()[0])
    with lease([NAMES[index]], tmp_path):
        pass
    message = capsys.readouterr().err
    assert message == (f"waiting for a GPU: {NAMES[index]} is held by process {holder.pid}\n")
    holder.communicate(timeout=30)


def test_a_killed_process_gives_its_gpu_back(tmp_path):
    holder = start_holder(tmp_path, 600)
    index = int(holder.stdout.readline().split()[0])
    start = time.monotonic()
    holder.kill()
    holder.wait()
    with lease([NAMES[index]], tmp_path) as taken:
        assert taken == 0
    assert time.monotonic() - start < 5
    holder.communicate()


def test_an_error_gives_the_gpu_back(tmp_path):
    with pytest.raises(ValueError, match="in the job"), lease(NAMES[:1], tmp_path):
        raise ValueError("in the job")
    with lease(NAMES[:1], tmp_path) as index:
        assert index == 0


def test_without_gpus_there_is_nothing_to_lease(tmp_path):
    with pytest.raises(BenchError, match="none is visible"), lease([], tmp_path):
        pass


def test_a_folder_that_is_a_file_is_said(tmp_path):
    path = tmp_path / "taken"
    path.write_text("")
    with pytest.raises(BenchError, match="HQDM_BENCH_LOCKS"), lease(NAMES, path):
        pass


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, NAMES),
        ("", NAMES),
        ("1,0", NAMES),  # the driver lists devices in the order of this variable
        ("GPU-aaaa,GPU-bbbb", NAMES),
        ("MIG-1111, MIG-2222", ["MIG-1111", "MIG-2222"]),
    ],
)
def test_names_are_uuids_but_for_slices(visible, names):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert gpu_names(NAMES, environment) == names


def test_the_folder_is_the_users_own_unless_chosen():
    assert lock_folder({"HQDM_BENCH_LOCKS": "some/locks"}) == Path("some/locks")
    assert lock_folder({}).name == f"hqdm-bench-locks-{os.getuid()}"
