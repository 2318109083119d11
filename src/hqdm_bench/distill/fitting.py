"""Fitting one reconstruction unit: settings, loss, batches, updates."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.adamw import AdamW
from hqdm_bench.distill.capture import UnitData
from hqdm_bench.methods import Student
from hqdm_bench.quantization import BetaSchedule, QuantizedLayer
from hqdm_bench.quantization.blocks import Unit

__all__ = [
    "Fit",
    "RoundingFit",
    "StepFit",
    "fit_unit",
    "mean_loss",
    "quantized_layers",
    "reconstruction_loss",
]


@dataclass(frozen=True)
class Fit:
    """How a unit is fitted.

    Attributes:
        updates: of Adam.
        batch: samples an update.
        rate: of the first update.
        decay: of the rate: a half ``cosine`` to zero, or ``none``.
        exponent: p of the loss.
    """

    updates: int
    batch: int
    rate: float
    decay: Literal["cosine", "none"]
    exponent: float

    def factor(self, update: int) -> float:
        """What the rate is multiplied by at an update, counted from 1."""
        if self.decay == "none":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (update - 1) / self.updates))


@dataclass(frozen=True)
class RoundingFit(Fit):
    """`Fit` of the rounding of weights.

    Attributes:
        penalty: weight of the rounding penalty.
        first_beta: its exponent when it sets in.
        last_beta: its exponent at the end.
        warm_up: share of the updates without it.
    """

    updates: int = 20_000
    batch: int = 32
    rate: float = 1e-3
    decay: Literal["cosine", "none"] = "none"
    exponent: float = 2.0
    penalty: float = 0.01
    first_beta: float = 20.0
    last_beta: float = 2.0
    warm_up: float = 0.2

    @property
    def beta(self) -> BetaSchedule:
        """Schedule of the penalty's exponent."""
        return BetaSchedule(self.updates, self.first_beta, self.last_beta, self.warm_up)


@dataclass(frozen=True)
class StepFit(Fit):
    """`Fit` of the step sizes of the inputs."""

    updates: int = 5000
    batch: int = 32
    rate: float = 4e-4
    decay: Literal["cosine", "none"] = "cosine"
    exponent: float = 2.4


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
    by_step = len(data.rows.unique()) > 1 and any(
        _has_steps(layer) for layer in quantized_layers(student, unit)
    )
    while True:
        if not by_step:
            index = torch.randperm(len(data), generator=random)[:size]
            yield int(data.rows[index[0]]), index
            continue
        row = int(data.rows[torch.randint(len(data), (1,), generator=random)])
        members = (data.rows == row).nonzero().flatten()
        yield row, members[torch.randperm(len(members), generator=random)[:size]]


def _has_steps(layer: QuantizedLayer) -> bool:
    table = getattr(layer.activation, "scale", None)  # a stand-in for exact inputs has none
    by_table = isinstance(table, Tensor) and len(table) > 1
    return by_table or layer.centre is not None or layer.weight.steps is not None


def quantized_layers(student: Student, unit: Unit) -> list[QuantizedLayer]:
    """All quantized layers in a unit, chosen or not."""
    modules = student.network.get_submodule(unit.name).modules()
    return [module for module in modules if isinstance(module, QuantizedLayer)]
