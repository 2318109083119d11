"""Which device a verb runs on, with GPUs that are simulated up to the driver's answers."""

import argparse
import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch

from hqdm_bench.cli import main
from hqdm_bench.cli.options import add_device, device_of

FLAGS = (
    (torch.backends.cuda.matmul, "allow_tf32", False),
    (torch.backends.cudnn, "allow_tf32", False),
    (torch.backends.cudnn, "deterministic", True),
    (torch.backends.cudnn, "benchmark", False),
)


@pytest.fixture(autouse=True)
def numerics():
    """Flags of torch as a process starts with them at worst; put back after the test."""
    before = [getattr(owner, name) for owner, name, _ in FLAGS]
    for owner, name, wanted in FLAGS:
        setattr(owner, name, not wanted)
    yield
    for (owner, name, _), value in zip(FLAGS, before, strict=True):
        setattr(owner, name, value)


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """Two GPUs of this host; returns the indices that were made the current one."""
    chosen = []
    monkeypatch.setenv("HQDM_BENCH_LOCKS", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid-{index}")
    )
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def arguments(device):
    return argparse.Namespace(device=device, held=contextlib.ExitStack())


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_two_verbs_at_a_time_run_on_two_gpus(two_gpus, device):
    first, second, third = arguments(device), arguments(device), arguments(device)
    assert device_of(first) == torch.device("cuda", 0)
    assert device_of(second) == torch.device("cuda", 1)
    first.held.close()
    assert device_of(third) == torch.device("cuda", 0)
    assert two_gpus == [0, 1, 0]


def test_numerics_of_a_gpu_are_plain_float32_and_deterministic(two_gpus):
    device_of(arguments("cuda"))
    assert [getattr(owner, name) for owner, name, _ in FLAGS] == [flag for *_, flag in FLAGS]


def test_the_cpu_takes_no_lock_and_sets_nothing(two_gpus, tmp_path):
    assert device_of(arguments("cpu")) == torch.device("cpu")
    assert list(tmp_path.iterdir()) == []
    assert [getattr(owner, name) for owner, name, _ in FLAGS] == [not flag for *_, flag in FLAGS]


def test_auto_without_a_gpu_is_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setenv("HQDM_BENCH_LOCKS", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(arguments("auto")) == torch.device("cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_verb_keeps_its_gpu_until_it_ends(two_gpus, monkeypatch):
    """Two verbs after one another in a process both get the first GPU, also after an error."""
    seen = []

    class Group:
        @staticmethod
        def add_verbs(verbs):
            verb = verbs.add_parser("probe")
            add_device(verb)
            verb.set_defaults(run=Group.run)

        @staticmethod
        def run(given):
            seen.append(device_of(given).index)
            other = arguments("cuda")
            seen.append(device_of(other).index)
            other.held.close()
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["hqdm_bench.cli.main"], "VERBS", (Group,))
    assert main(["probe"]) == main(["probe"]) == 130
    assert seen == [0, 1, 0, 1]
