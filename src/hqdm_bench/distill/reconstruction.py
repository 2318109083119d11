"""Block reconstruction: unit after unit learns the output it has in full precision.

BRECQ (Li et al., ICLR 2021) as Q-Diffusion releases it for diffusion models: first the rounding of
all weights with exact inputs, later the step sizes of the inputs with the rounded weights. The
defaults are Q-Diffusion's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.progress import Progress
from hqdm_bench.distill.calls import Call, run_call
from hqdm_bench.distill.capture import MEMORY, Inputs, UnitData, capture
from hqdm_bench.distill.fitting import (
    fit_unit,
    mean_loss,
    quantized_layers,
    quantized_operands,
)
from hqdm_bench.distill.probes import exact_activations
from hqdm_bench.distill.rounding import learned_rounding, unit_layers, weighted_penalty
from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.methods import RoundingFit, StepFit, Student
from hqdm_bench.quantization import ExactInput, QuantizedAttention
from hqdm_bench.quantization.blocks import ALL_BLOCKS, Kind, Unit, find_units, in_call_order

__all__ = ["Reconstructed", "reconstruct_steps", "reconstruct_weights"]


@dataclass(frozen=True)
class Reconstructed:
    """What became of a unit.

    Attributes:
        unit: which.
        samples: that it was fitted on.
        before: mean loss over them at the start, weights rounded to nearest.
        after: mean loss at the end, weights rounded as learned.
    """

    unit: Unit
    samples: int
    before: float
    after: float


def reconstruct_weights(
    student: Student,
    teacher: nn.Module,
    calls: Sequence[Call],
    fit: RoundingFit | None = None,
    *,
    layers: Collection[str] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    blocks: Collection[Kind] = ALL_BLOCKS,
    seed: int = 0,
    memory: int = MEMORY,
    log: StageLog | None = None,
) -> list[Reconstructed]:
    """Learn the rounding of static weights, in place, each on the grid it has.

    Activations are exact meanwhile and need no range yet. Units follow each other in the order in
    which a call reaches them; each takes its inputs from the student with all weights quantized,
    those of the units before as they were learned.

    Args:
        student: its layers' weights are `StaticWeight`, and are again afterwards.
        teacher: the module the student was made of; gives targets and float weights.
        calls: arguments of the module, each at one timestep of the student's tables.
        fit: Q-Diffusion's settings if None.
        layers: which layers; all low-bit ones if None.
        weights: float weights by layer, for layers whose weight is neither the teacher's nor a part
            of it (`float_weight`), nor one of these scaled.
        blocks: see `find_units`.
        seed: of the batches.
        memory: bytes that are kept for one unit at most.
        log: says which units an earlier run finished, and is told of each that is.

    Returns:
        One entry a unit that was left, in order.

    Raises:
        BenchError: no calls, a layer that no call runs or whose weight is not static, or a loss
            that is not finite.
    """
    fit = fit or RoundingFit()
    with exact_activations(student):
        units = _units(student, calls, layers, blocks)

    def learn(unit: Unit) -> Reconstructed:
        with exact_activations(student):
            data = capture(student, teacher, unit.name, calls, seed, memory)
            return _fit_rounding(student, teacher, unit, data, fit, weights or {}, seed)

    return _one_by_one("reconstruct weights", units, learn, log or StageLog(student))


def reconstruct_steps(
    student: Student,
    teacher: nn.Module,
    calls: Sequence[Call],
    fit: StepFit | None = None,
    *,
    layers: Collection[str] | None = None,
    blocks: Collection[Kind] = ALL_BLOCKS,
    inputs: Inputs = "exact",
    seed: int = 0,
    memory: int = MEMORY,
    log: StageLog | None = None,
) -> list[Reconstructed]:
    """Learn the step sizes of inputs, in place; zero-points and weights stay.

    Those of quantized attention are learned with the block it is in, but for a softmax's output at
    16 bits, as released.

    Args:
        student: calibrated.
        teacher: the module the student was made of.
        calls: as in `reconstruct_weights`.
        fit: Q-Diffusion's settings if None.
        layers: which layers and attentions; all low-bit layers and all attentions with quantized
            products if None. Layers with an exact input are passed over.
        blocks: see `find_units`.
        inputs: of a unit: ``exact``, those in full precision, as Q-Diffusion and PTQD release it,
            or ``quantized``, those in the student as it is.
        seed: of the batches.
        memory: bytes that are kept for one unit at most.
        log: says which units an earlier run finished, and is told of each that is.

    Returns:
        One entry a unit that was left, in order.

    Raises:
        BenchError: no calls, a layer that no call runs or without a learned step size, or a loss
            that is not finite.
    """
    fit = fit or StepFit()
    found = student.low_bit_layers()
    if layers is None:
        layers = [*found, *student.quantized_attention()]
    exact = {name for name, layer in found.items() if isinstance(layer.activation, ExactInput)}
    layers = [name for name in layers if name not in exact]
    units = _units(student, calls, layers, blocks)

    def learn(unit: Unit) -> Reconstructed:
        data = capture(student, teacher, unit.name, calls, seed, memory, inputs)
        return _fit_steps(student, unit, data, fit, seed)

    return _one_by_one("reconstruct steps", units, learn, log or StageLog(student))


def _units(
    student: Student,
    calls: Sequence[Call],
    layers: Collection[str] | None,
    blocks: Collection[Kind],
) -> list[Unit]:
    """Units of the chosen layers in the order of a call."""
    if not calls:
        raise BenchError("reconstruction needs calibration calls; give at least one")
    student.unfreeze()
    chosen = student.low_bit_layers() if layers is None else layers
    units = find_units(student.network, list(chosen), blocks)
    with torch.no_grad():
        return in_call_order(student.network, units, lambda: run_call(student, calls[0]))


def _one_by_one(
    label: str, units: Sequence[Unit], learn: Callable[[Unit], Reconstructed], log: StageLog
) -> list[Reconstructed]:
    """Learn the units that no earlier run finished."""
    left = [unit for unit in units if not log.done(unit.name)]
    done: list[Reconstructed] = []
    with Progress(label, total=len(left)) as progress:
        for unit in left:
            done.append(learn(unit))
            log.mark(unit.name, done[-1].samples)
            progress.update(len(done), loss=done[-1].after)
    return done


def _fit_rounding(
    student: Student,
    teacher: nn.Module,
    unit: Unit,
    data: UnitData,
    fit: RoundingFit,
    weights: Mapping[str, Tensor],
    seed: int,
) -> Reconstructed:
    before = mean_loss(student, unit, data, fit)
    with learned_rounding(student, teacher, unit, weights) as rounded:
        groups = [{"params": [weight.rounding for weight in rounded], "lr": fit.rate}]
        fit_unit(student, unit, data, fit, groups, seed, weighted_penalty(rounded, fit))
    return Reconstructed(unit, len(data), before, mean_loss(student, unit, data, fit))


def _fit_steps(
    student: Student, unit: Unit, data: UnitData, fit: StepFit, seed: int
) -> Reconstructed:
    scales: list[nn.Parameter] = []
    for name, layer in unit_layers(student, unit).items():
        if not isinstance(layer.activation.scale, nn.Parameter):
            raise BenchError(f"the input of '{name}' has a fixed step size; take a learned one")
        scales.append(layer.activation.scale)
    for attention in _attentions(student, unit):
        scales += attention.step_sizes()
    before = mean_loss(student, unit, data, fit)
    trained = [scale.requires_grad for scale in scales]
    groups = [
        {
            "params": [scale for scale in scales if (len(scale) > 1) == by_row],
            "lr": fit.rate,
            "rows": by_row,
        }
        for by_row in (False, True)
    ]
    try:
        for scale in scales:
            scale.requires_grad_(True)
        fit_unit(student, unit, data, fit, groups, seed)
    finally:
        for scale, was in zip(scales, trained, strict=True):
            scale.requires_grad_(was)
        for holder in (*quantized_layers(student, unit), *quantized_operands(student, unit)):
            holder.zero_grad()  # what could be trained but is not has gradients, too
    return Reconstructed(unit, len(data), before, mean_loss(student, unit, data, fit))


def _attentions(student: Student, unit: Unit) -> list[QuantizedAttention]:
    modules = [student.network.get_submodule(name) for name in unit.layers]
    return [module for module in modules if isinstance(module, QuantizedAttention)]
