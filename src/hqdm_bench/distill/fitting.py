"""Fitting one reconstruction unit: loss, batches, updates."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.adamw import AdamW
from hqdm_bench.distill.capture import UnitData
from hqdm_bench.methods import Fit, Student
from hqdm_bench.quantization import (
    QuantizedAttention,
    QuantizedInput,
    QuantizedLayer,
    QuantizedOperand,
)
from hqdm_bench.quantization.blocks import Unit

__all__ = [
    "fit_unit",
    "mean_loss",
    "quantized_layers",
    "quantized_operands",
    "reconstruction_loss",
]


def reconstruction_loss(output: Tensor, target: Tensor, exponent: float = 2.0) -> Tensor:
    """0-d mean over all but axis 1, over which |output - target|^p is summed (BRECQ).

    Axis 1 holds the channels of images and the tokens of sequences, as released.
    """
    error = output - target
    powers = error.square() if exponent == 2 else error.abs().pow(exponent)
    return powers.sum(1).mean()


def fit_unit(
    student: Student,
    unit: Unit,
    data: UnitData,
    fit: Fit,
    groups: Sequence[dict[str, Any]],
    seed: int,
    penalty: Callable[[int], Tensor | None] = lambda _: None,
) -> None:
    """Minimise the loss of a unit, and a penalty, by Adam on random batches.

    Args:
        student: whose unit.
        unit: what runs.
        data: inputs and targets.
        fit: settings.
        groups: of parameters, each in use whenever the unit runs: ``params``, ``lr``, and ``rows``
            if they are step tables.
        seed: of the batches.
        penalty: of an update, counted from 1; None for none.

    Raises:
        BenchError: the loss is not finite.
    """
    optimiser = AdamW([{**group, "weight_decay": 0.0} for group in groups if group["params"]])
    batches = _batches(student, unit, data, fit.batch, generator("reconstruct", seed, unit.name))
    for update in range(1, fit.updates + 1):
        row, index = next(batches)
        with torch.enable_grad():
            loss = _loss(student, unit, data, fit, row, index)
            extra = penalty(update)
            loss = loss if extra is None else loss + extra
        if not bool(loss.isfinite()):
            raise BenchError(
                f"reconstruction of '{unit.name}' diverged at update {update} of {fit.updates}; "
                "lower the rate"
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(fit.factor(update), row)
    optimiser.zero_grad()


def _loss(
    student: Student, unit: Unit, data: UnitData, fit: Fit, row: int, index: Tensor
) -> Tensor:
    if student.step is not None:
        student.step.set(student.step.timesteps[row])
    module = student.network.get_submodule(unit.name)
    device = next(student.network.parameters(), data.targets).device
    positional, named = data.batch(index, device)
    target = data.targets[index].to(device)
    return reconstruction_loss(module(*positional, **named), target, fit.exponent)


@torch.no_grad()
def mean_loss(student: Student, unit: Unit, data: UnitData, fit: Fit) -> float:
    """Mean of `reconstruction_loss` over all samples, as the unit is now."""
    total = 0.0
    for row in data.rows.unique().tolist():
        for index in (data.rows == row).nonzero().flatten().split(fit.batch):
            total += float(_loss(student, unit, data, fit, row, index)) * len(index)
    return total / len(data)


def _batches(
    student: Student, unit: Unit, data: UnitData, size: int, random: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """Random samples, with the row they are run at.

    Where something in the unit depends on the step, a batch is of one step, drawn by how many
    samples there are of it; otherwise steps mix, as released.
    """
    holders: list[QuantizedInput] = [
        *quantized_layers(student, unit),
        *quantized_operands(student, unit),
    ]
    by_step = len(data.rows.unique()) > 1 and any(_has_steps(holder) for holder in holders)
    while True:
        if not by_step:
            index = torch.randperm(len(data), generator=random)[:size]
            yield int(data.rows[index[0]]), index
            continue
        row = int(data.rows[torch.randint(len(data), (1,), generator=random)])
        members = (data.rows == row).nonzero().flatten()
        yield row, members[torch.randperm(len(members), generator=random)[:size]]


def _has_steps(holder: QuantizedInput) -> bool:
    table = getattr(holder.activation, "scale", None)  # a stand-in for exact inputs has none
    by_table = isinstance(table, Tensor) and len(table) > 1
    if isinstance(holder, QuantizedOperand):
        return by_table
    return by_table or holder.centre is not None or holder.weight.steps is not None


def quantized_layers(student: Student, unit: Unit) -> list[QuantizedLayer]:
    """All quantized layers in a unit, chosen or not."""
    modules = student.network.get_submodule(unit.name).modules()
    return [module for module in modules if isinstance(module, QuantizedLayer)]


def quantized_operands(student: Student, unit: Unit) -> list[QuantizedOperand]:
    """Operands of all quantized attention in a unit, chosen or not."""
    modules = student.network.get_submodule(unit.name).modules()
    found = [module for module in modules if isinstance(module, QuantizedAttention)]
    return [operand for attention in found for operand in attention.operands]
