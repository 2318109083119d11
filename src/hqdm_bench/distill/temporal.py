"""Reconstruction of what depends on nothing but the timestep (TFMQ-DM, Huang et al., CVPR 2024).

The embedding of the timestep and its projections in all residual blocks learn their rounding
together, from the finitely many inputs they ever have: one a timestep. The loss is the sum of the
projections' reconstruction losses (``LossFuncTimeEmbedding`` of the released code).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.adamw import AdamW
from hqdm_bench.distill.calls import Call, run_call
from hqdm_bench.distill.capture import reach
from hqdm_bench.distill.fitting import reconstruction_loss
from hqdm_bench.distill.probes import exact_activations
from hqdm_bench.distill.reconstruction import Reconstructed
from hqdm_bench.distill.rounding import learned_rounding, weighted_penalty
from hqdm_bench.methods import RoundingFit, Student
from hqdm_bench.quantization import TemporalBlock, find_temporal_block
from hqdm_bench.quantization.blocks import Unit

__all__ = ["TemporalData", "embedding_loss", "reconstruct_temporal", "temporal_data"]

# What residual blocks apply to the embedding before they project it, unless the projection does.
ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    nn.Identity(),
    nn.functional.silu,
    nn.functional.mish,
    nn.functional.gelu,
    nn.functional.relu,
)


@dataclass(frozen=True)
class TemporalData:
    """Inputs of a temporal block.

    Attributes:
        block: which.
        inputs: (T, C) what is embedded, one row a timestep.
        samples: (n,) int64, the timestep of each calibration sample, as a row of ``inputs``.
        activations: between the embedding and each projection.
    """

    block: TemporalBlock
    inputs: Tensor
    samples: Tensor
    activations: tuple[Callable[[Tensor], Tensor], ...]

    def run(self, network: nn.Module, index: Tensor) -> list[Tensor]:
        """What the projections of a network return.

        Args:
            network: the full-precision one, or one with quantized layers.
            index: (b,) rows of ``inputs``.
        """
        embedding = network.get_submodule(self.block.embedding)(self.inputs[index])
        return [
            network.get_submodule(name)(activation(embedding))
            for name, activation in zip(self.block.projections, self.activations, strict=True)
        ]


def embedding_loss(
    outputs: Sequence[Tensor], targets: Sequence[Tensor], exponent: float = 2.0
) -> Tensor:
    """0-d sum of `reconstruction_loss` over the projections."""
    pairs = zip(outputs, targets, strict=True)
    return torch.stack([reconstruction_loss(*pair, exponent) for pair in pairs]).sum()


def reconstruct_temporal(
    student: Student,
    teacher: nn.Module,
    calls: Sequence[Call],
    fit: RoundingFit | None = None,
    *,
    seed: int = 0,
) -> Reconstructed | None:
    """Learn the rounding of the low-bit weights in the temporal block, in place, inputs exact.

    Timesteps are drawn as often as the calls have samples of them.

    Args:
        student: its layers' weights are `StaticWeight`, and are again afterwards.
        teacher: the module the student was made of; gives targets and float weights.
        calls: arguments of the module, each at one timestep.
        fit: TFMQ-DM's settings if None.
        seed: of the batches.

    Returns:
        What became of the block; None where the module has none (`find_temporal_block`) or none of
        its layers is low-bit.

    Raises:
        BenchError: no calls, a block that takes something besides the timestep, or a loss that is
            not finite.
    """
    fit = fit or RoundingFit()
    block = find_temporal_block(student.network)
    if block is None:
        return None
    names = [name for name in student.low_bit_layers() if block.holds(name)]
    if not names:
        return None
    student.unfreeze()
    unit = Unit(block.embedding, "temporal", tuple(names))
    data = temporal_data(teacher, block, calls)
    with torch.no_grad():
        targets = data.run(teacher, torch.arange(len(data.inputs)))
    with exact_activations(student):
        if student.step is not None:
            student.step.set(student.step.timesteps[0])  # nothing in the block depends on it
        before = _mean_loss(student, data, targets, fit)
        with learned_rounding(student, teacher, unit) as rounded:
            _fit(student, data, targets, fit, weighted_penalty(rounded, fit), rounded, seed)
        after = _mean_loss(student, data, targets, fit)
    return Reconstructed(unit, len(data.samples), before, after)


def _fit(
    student: Student,
    data: TemporalData,
    targets: Sequence[Tensor],
    fit: RoundingFit,
    penalty: Callable[[int], Tensor | None],
    rounded: Sequence[nn.Module],
    seed: int,
) -> None:
    parameters = [parameter for weight in rounded for parameter in weight.parameters()]
    optimiser = AdamW([{"params": parameters, "lr": fit.rate, "weight_decay": 0.0}])
    random = generator("reconstruct", seed, data.block.embedding)
    for update in range(1, fit.updates + 1):
        index = data.samples[torch.randperm(len(data.samples), generator=random)[: fit.batch]]
        with torch.enable_grad():
            loss = _loss(student, data, targets, fit, index)
            extra = penalty(update)
            loss = loss if extra is None else loss + extra
        if not bool(loss.isfinite()):
            raise BenchError(
                f"reconstruction of '{data.block.embedding}' diverged at update {update} of "
                f"{fit.updates}; lower the rate"
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(fit.factor(update))


def _loss(
    student: Student,
    data: TemporalData,
    targets: Sequence[Tensor],
    fit: RoundingFit,
    index: Tensor,
) -> Tensor:
    outputs = data.run(student.network, index)
    return embedding_loss(outputs, [target[index] for target in targets], fit.exponent)


@torch.no_grad()
def _mean_loss(
    student: Student, data: TemporalData, targets: Sequence[Tensor], fit: RoundingFit
) -> float:
    """Over all samples, as the block is now."""
    timesteps, counts = data.samples.unique(return_counts=True)
    losses = [_loss(student, data, targets, fit, timestep.view(1)) for timestep in timesteps]
    return float(torch.stack(losses).cpu() @ counts.to(losses[0].dtype)) / len(data.samples)


@torch.no_grad()
def temporal_data(teacher: nn.Module, block: TemporalBlock, calls: Sequence[Call]) -> TemporalData:
    """What goes into the block in calls of the full-precision module, which quantization leaves.

    Raises:
        BenchError: no calls, or the block takes something besides the timestep.
    """
    if not calls:
        raise BenchError("reconstruction needs calibration calls; give at least one")
    inputs, counts = [], []
    for call in calls:
        arguments, _ = reach(teacher, block.embedding, functools.partial(run_call, teacher, call))
        x = arguments[0]
        if not _equal(x, x[:1].expand_as(x)):
            raise BenchError(
                f"'{block.embedding}' takes different rows at one timestep; the temporal block is "
                "what depends on the timestep alone"
            )
        inputs.append(x[:1])
        counts.append(len(x))
    distinct, places = torch.cat(inputs).unique(dim=0, return_inverse=True)
    samples = places.cpu().repeat_interleave(torch.tensor(counts))
    return TemporalData(block, distinct, samples, _activations(teacher, block, calls[0]))


def _activations(
    teacher: nn.Module, block: TemporalBlock, call: Call
) -> tuple[Callable[[Tensor], Tensor], ...]:
    """What lies between the embedding and each projection, found by comparing their values."""
    seen = _inputs(teacher, (block.embedding, *block.projections), call)
    embedding = teacher.get_submodule(block.embedding)(seen[block.embedding])
    found = []
    for name in block.projections:
        fits = [one for one in ACTIVATIONS if _equal(one(embedding), seen[name])]
        if not fits:
            raise BenchError(
                f"'{name}' does not take the output of '{block.embedding}', as it is or through an "
                "activation function; the temporal block is what depends on the timestep alone"
            )
        found.append(fits[0])
    return tuple(found)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def _inputs(network: nn.Module, names: Sequence[str], call: Call) -> Mapping[str, Tensor]:
    """First argument of modules in a call."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, args: seen.update({name: args[0]})

    hooks = [network.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names]
    try:
        run_call(network, call)
    finally:
        for hook in hooks:
            hook.remove()
    missing = [name for name in names if name not in seen]
    if missing:
        raise BenchError(f"a calibration call does not run '{missing[0]}'; give calls that do")
    return seen
