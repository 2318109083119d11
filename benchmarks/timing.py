"""Clocks of the benchmarks."""

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

__all__ = ["alternate", "clock", "seconds", "working_bytes"]


def clock() -> float:
    """CPU seconds with one thread, wall-clock seconds with more."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """Best time of a call, after one that does not count."""
    return alternate({"": call}, rounds)[""]


def alternate(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Best time of each call, the calls taking turns, after one round that does not count."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def working_bytes(call: Callable[[], object]) -> int:
    """How far the resident memory of the process rises during a call; Linux only, else -1."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return -1
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")
    before = _kilobytes(status, "VmRSS")
    call()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, key: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])
