"""Selective fine-tuning of a rounded network (QuEST, as released).

Float weights go back behind the rounding sides they were given, are trained through an STE floor
against the full-precision network, and are committed again.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.progress import Progress
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.adamw import AdamW
from hqdm_bench.distill.call_pool import CallPool
from hqdm_bench.distill.calls import Call, run_call
from hqdm_bench.methods import Student
from hqdm_bench.methods.stage_finetune import EMBEDDING, FineTune
from hqdm_bench.quantization import (
    ActivationQuantizer,
    QuantizedLayer,
    StaticWeight,
    TrainedWeight,
    float_weight,
    source_name,
)

__all__ = ["fine_tune", "fine_tuning_loss"]


def fine_tune(
    student: Student,
    teacher: nn.Module,
    calls: Sequence[Call],
    stage: FineTune,
    seed: int = 0,
) -> list[float]:
    """Train weights, biases and step sizes of a part in place; the weights are static again after.

    Timesteps are visited from the noisiest to the last, as the released data come.

    Args:
        student: calibrated; the weights of the part are `StaticWeight`.
        teacher: the module the student was made of.
        calls: arguments of the module, each at one timestep of the student's tables.
        stage: settings.
        seed: of the samples.

    Returns:
        The loss of every update.

    Raises:
        BenchError: the student is not calibrated or has no layer of the part, a weight is not
            static, a call does not reach something that is trained, or the loss is not finite.
    """
    if not student.calibrated:
        raise BenchError("fine-tuning needs activation ranges; calibrate the student first")
    student.unfreeze()
    layers = _layers(student, stage)
    # Of a layer that was made into several, the outputs of all together.
    names = list(dict.fromkeys(source_name(student.network, name) for name in layers))
    tables = _tables(student, stage)
    pools = _pools(student, calls)
    random = generator("fine-tune", seed, stage.part)
    losses: list[float] = []
    with _trainable(student, layers, teacher, tables) as weights:
        optimiser = AdamW([{"params": weights, "lr": stage.weight_rate, "weight_decay": 0.0}])
        visits = _visits(pools, stage)
        with Progress(f"fine-tune {stage.part}", total=len(visits)) as progress:
            for done, (row, repeats) in enumerate(visits, 1):
                index = torch.randperm(len(pools[row]), generator=random)[: stage.samples]
                batches = [pools[row].batch(part) for part in index.split(stage.batch)]
                optimisers = optimiser, _step_optimiser(tables, stage)
                losses += _visit(student, teacher, names, batches, repeats, stage, optimisers)
                progress.update(done, loss=losses[-1])
    return losses


def fine_tuning_loss(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    output: Tensor,
    target: Tensor,
    stage: FineTune,
) -> Tensor:
    """0-d sum of mean squared errors, see `FineTune`.

    Args:
        found: outputs of the layers of the part in the quantized network, by name.
        wanted: in the full-precision network.
        output: of the quantized network.
        target: of the full-precision network.
        stage: what counts.
    """
    loss = nn.functional.mse_loss(output, target) * (len(found) if stage.repeat_output else 1)
    if stage.local:
        errors = [nn.functional.mse_loss(found[name], wanted[name]) for name in found]
        loss = loss + torch.stack(errors).sum()
    return loss


def _visit(
    student: Student,
    teacher: nn.Module,
    names: Sequence[str],
    batches: Sequence[Call],
    repeats: int,
    stage: FineTune,
    optimisers: tuple[AdamW, AdamW],
) -> list[float]:
    """Updates at one timestep."""
    losses = []
    targets: dict[int, tuple[dict[str, Tensor], Tensor]] = {}
    for _ in range(repeats):
        for place, call in enumerate(batches):
            wanted, target = targets.get(place) or _run(teacher, teacher, names, call, False)
            if repeats > 1:
                targets[place] = wanted, target
            found, output = _run(student, student.network, names, call, True)
            loss = fine_tuning_loss(found, wanted, output, target, stage)
            if not bool(loss.isfinite()):
                raise BenchError(f"fine-tuning of the {stage.part} part diverged; lower its rates")
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            assert student.step is not None
            for optimiser in optimisers:
                _require_gradients(student, optimiser)
                optimiser.step(1.0, student.step.index)
            losses.append(float(loss.detach()))
    for optimiser in optimisers:
        optimiser.zero_grad()
    return losses


def _run(
    module: nn.Module,
    network: nn.Module,
    names: Sequence[str],
    call: Call,
    gradients: bool,
) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of some layers and of the whole."""
    seen: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(gradients))
        for name in names:
            hook = network.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name: seen.__setitem__(name, output)
            )
            stack.callback(hook.remove)
        output = run_call(module, call)
    return seen, _first_tensor(output)


def _first_tensor(output: Any) -> Tensor:
    """A prediction that is a tensor, or the first entry of a tuple or mapping, as of diffusers."""
    found = output
    if isinstance(output, Mapping):
        found = next(iter(output.values()), None)
    elif isinstance(output, (tuple, list)):
        found = next(iter(output), None)
    if not isinstance(found, Tensor):
        raise BenchError(
            f"fine-tuning needs a tensor as output, or one in a tuple or mapping, not a "
            f"{type(output).__name__}"
        )
    return found


def _layers(student: Student, stage: FineTune) -> dict[str, QuantizedLayer]:
    found = {
        name: layer
        for name, layer in student.low_bit_layers().items()
        if any(fnmatchcase(name, pattern) for pattern in stage.weights)
    }
    if not found:
        raise BenchError(
            f"{type(student.network).__name__} has no quantized layer of the {stage.part} part, "
            f"named {' or '.join(stage.weights)}; there is nothing to fine-tune"
        )
    for name, layer in found.items():
        if not isinstance(layer.weight, StaticWeight):
            raise BenchError(f"'{name}' cannot be fine-tuned; its weight is not rounded yet")
    return found


def _tables(student: Student, stage: FineTune) -> list[nn.Parameter]:
    """Step sizes of inputs that are trained, those within the attention too."""
    found = []
    for name, module in student.network.named_modules():
        if not isinstance(module, ActivationQuantizer):
            continue
        if stage.part == "temporal":
            chosen = any(fnmatchcase(name, f"{pattern}.activation") for pattern in stage.weights)
        else:
            chosen = not any(fnmatchcase(name, pattern) for pattern in EMBEDDING)
        if chosen and isinstance(module.scale, nn.Parameter):
            found.append(module.scale)
    return found


def _pools(student: Student, calls: Sequence[Call]) -> dict[int, CallPool]:
    """Samples by row of the tables."""
    assert student.step is not None
    by_row: dict[int, list[Call]] = {}
    for call in calls:
        if isinstance(call, Mapping):
            student.step.set(student.timestep_of(**call))
        else:
            student.step.set(student.timestep_of(*call))
        by_row.setdefault(student.step.index, []).append(call)
    if not by_row:
        raise BenchError("fine-tuning needs calibration calls; give at least one")
    return {row: CallPool(found) for row, found in by_row.items()}


def _visits(pools: Mapping[int, CallPool], stage: FineTune) -> list[tuple[int, int]]:
    """Rows in the order they are visited, and how often their samples are gone through."""
    rows = sorted(pools, reverse=True)
    if stage.visits == "once":
        return [(row, stage.epochs) for row in rows]
    return [(row, 1) for _ in range(stage.epochs) for row in rows]


def _step_optimiser(tables: Sequence[nn.Parameter], stage: FineTune) -> AdamW:
    shared = [table for table in tables if len(table) == 1]
    by_step = [table for table in tables if len(table) > 1]
    common = {"lr": stage.step_rate, "weight_decay": 0.0}
    return AdamW([{"params": shared, **common}, {"params": by_step, "rows": True, **common}])


@contextlib.contextmanager
def _trainable(
    student: Student,
    layers: Mapping[str, QuantizedLayer],
    teacher: nn.Module,
    tables: Sequence[nn.Parameter],
) -> Iterator[list[Tensor]]:
    """Float weights behind the codes of the layers, their biases and the tables with gradients."""
    was = [table.requires_grad for table in tables]
    trained: list[Tensor] = []
    try:
        for name, layer in layers.items():
            source = float_weight(student.network, teacher, name)
            assert isinstance(layer.weight, StaticWeight)
            weight = TrainedWeight.from_static(source.detach().to(layer.weight.scale), layer.weight)
            layer.weight = weight
            trained.append(weight.weight)
            if layer.bias is not None:
                trained.append(layer.bias.requires_grad_(True))
        for table in tables:
            table.requires_grad_(True)
        yield trained
    finally:
        for table, before in zip(tables, was, strict=True):
            table.requires_grad_(before)
        for layer in layers.values():
            if isinstance(layer.weight, TrainedWeight):
                layer.weight = layer.weight.commit()
            if layer.bias is not None:
                layer.bias.requires_grad_(False)


def _require_gradients(student: Student, optimiser: AdamW) -> None:
    if all(parameter.grad is not None for parameter in optimiser.parameters):
        return
    names = {id(value): name for name, value in student.network.state_dict(keep_vars=True).items()}
    missing = [names[id(one)] for one in optimiser.parameters if one.grad is None]
    raise BenchError(f"no calibration call reaches '{missing[0]}'; leave it out or call it")
