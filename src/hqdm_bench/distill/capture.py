"""What a part of a network takes in and what it should put out, over calibration calls."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.calls import Call, call_timestep, run_call
from hqdm_bench.methods import Student

__all__ = ["MEMORY", "Inputs", "UnitData", "capture", "reach"]

MEMORY = 4 << 30  # bytes of what is kept for one unit

Arguments = dict[int | str, Any]
Inputs = Literal["quantized", "exact"]


class _ReachedError(Exception):
    """The part has run; the rest of the network need not."""


@dataclass(frozen=True)
class UnitData:
    """Inputs and targets of a unit, sample by sample.

    Attributes:
        arguments: by position or name; tensors of n samples, and what all samples share.
        batched: which of the arguments go by sample.
        targets: (n, ...) full-precision outputs.
        rows: (n,) int64, row of the step tables of each sample.
    """

    arguments: Arguments
    batched: frozenset[int | str]
    targets: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: Tensor, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments of some samples, on a device."""
        taken = {
            key: value[index].to(device) if key in self.batched else value
            for key, value in self.arguments.items()
        }
        positional = tuple(taken[key] for key in sorted(k for k in taken if isinstance(k, int)))
        return positional, {key: value for key, value in taken.items() if isinstance(key, str)}


@torch.no_grad()
def capture(
    student: Student,
    teacher: nn.Module,
    name: str,
    calls: Sequence[Call],
    seed: int,
    memory: int = MEMORY,
    inputs: Inputs = "quantized",
) -> UnitData:
    """Run calls up to a unit: its inputs, and its outputs in the teacher.

    Inputs are those in the student as it is (``quantized``), so that later units see the errors of
    the earlier ones (asymmetric reconstruction, Section 3.4 of AdaRound), or those in the teacher
    (``exact``), so that every unit is fitted by itself. What is kept stays on the CPU; above
    ``memory`` bytes a random part of each call's samples is kept.

    Args:
        student: quantized network; whether its inputs are quantized is as it is now.
        teacher: the full-precision module.
        name: dotted name of the unit, the same in both.
        calls: arguments of the network.
        seed: of the samples that are kept.
        memory: bytes.
        inputs: whose inputs.

    Raises:
        BenchError: there is no call, a call does not reach the unit, its output is no tensor, or
            calls differ in the kind of their arguments.
    """
    if not calls:
        raise BenchError("reconstruction needs calibration calls; give at least one")
    random = generator("reconstruction-samples", seed, name)
    parts = []
    for call in calls:
        arguments, target = reach(teacher, name, functools.partial(run_call, teacher, call))
        if inputs == "quantized":
            arguments, _ = reach(student.network, name, functools.partial(run_call, student, call))
        elif student.step is not None:
            student.step.set(call_timestep(student, call))
        row = 0 if student.step is None else student.step.index
        parts.append(_part(arguments, target, row, memory / len(calls), random))
    return _joined(parts, name)


def _part(
    arguments: Arguments, target: Tensor, row: int, memory: float, random: torch.Generator
) -> UnitData:
    """What is kept of one call."""
    count = len(target)
    batched = frozenset(
        key
        for key, value in arguments.items()
        if isinstance(value, Tensor) and value.dim() and len(value) == count
    )
    size = sum(_bytes(arguments[key]) for key in batched) + _bytes(target)
    fits = max(1, int(memory * count / max(1, size)))
    index = torch.arange(count)
    if fits < count:
        index = torch.randperm(count, generator=random)[:fits].sort().values
    kept = {
        key: _keep(value, index) if key in batched else value for key, value in arguments.items()
    }
    return UnitData(kept, batched, _keep(target, index), torch.full((len(index),), row))


def _joined(parts: Sequence[UnitData], name: str) -> UnitData:
    first = parts[0]
    if any(part.batched != first.batched for part in parts):
        raise BenchError(
            f"the calibration calls give '{name}' arguments of different kinds; give calls alike"
        )
    arguments = {
        key: torch.cat([part.arguments[key] for part in parts]) if key in first.batched else value
        for key, value in first.arguments.items()
    }
    targets = torch.cat([part.targets for part in parts])
    return UnitData(arguments, first.batched, targets, torch.cat([part.rows for part in parts]))


def reach(network: nn.Module, name: str, run: Callable[[], Any]) -> tuple[Arguments, Tensor]:
    """Arguments and output of a unit in one call, which ends there.

    Args:
        network: that has the unit.
        name: dotted name of the unit.
        run: calls the network.

    Raises:
        BenchError: the call does not run the unit, or its output is no tensor.
    """
    found: list[tuple[Arguments, Any]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        arguments: Arguments = dict(enumerate(args))
        arguments.update(kwargs)
        found.append((arguments, output))
        raise _ReachedError

    hook = network.get_submodule(name).register_forward_hook(keep, with_kwargs=True)
    try:
        run()
    except _ReachedError:
        pass
    finally:
        hook.remove()
    if not found:
        raise BenchError(f"a calibration call does not run '{name}'; leave it out or call it")
    arguments, output = found[0]
    if not isinstance(output, Tensor):
        raise BenchError(f"'{name}' returns a {type(output).__name__}; a unit returns a tensor")
    return arguments, output


def _keep(value: Tensor, index: Tensor) -> Tensor:
    return value[index.to(value.device)].cpu()


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
