"""Example calls of a module, which students are calibrated on."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hqdm_bench.methods import Student

__all__ = ["Call", "call_timestep", "run_call"]

Call = Sequence[Any] | Mapping[str, Any]  # positional arguments, or arguments by name


def run_call(module: nn.Module, call: Call) -> Any:
    """What a module returns for a call."""
    return module(**call) if isinstance(call, Mapping) else module(*call)


def call_timestep(student: Student, call: Call) -> float:
    """The timestep among the arguments of a call."""
    if isinstance(call, Mapping):
        return student.timestep_of(**call)
    return student.timestep_of(*call)
