"""Scales of input channels, found layer by layer: learned (DMQ) or searched (OS+).

Every layer finds its scales by itself, on the inputs and outputs it has in the full-precision
module (`learn_scaling`, `search_threshold`); so no layer's scales depend on another's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.progress import Progress
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.calls import Call, run_call
from hqdm_bench.distill.capture import MEMORY
from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.methods import Student
from hqdm_bench.quantization import (
    QuantizedLayer,
    ScalingSettings,
    learn_scaling,
    part_input,
    search_threshold,
    source_name,
)

__all__ = ["layer_inputs", "learn_scalings", "search_thresholds", "step_row"]

Inputs = tuple[Tensor, Tensor]
Source = nn.Conv1d | nn.Conv2d | nn.Linear


def learn_scalings(
    student: Student,
    teacher: nn.Module,
    calls: Sequence[Call],
    settings: ScalingSettings,
    *,
    seed: int = 0,
    memory: int = MEMORY,
    log: StageLog | None = None,
) -> None:
    """Learn the scales of every low-bit layer that has them, and quantize its tau W, in place.

    Args:
        student: its layers' weights are static.
        teacher: the module the student was made of.
        calls: arguments of the module, each at one timestep of the student's tables.
        settings: of one layer.
        seed: of the samples that are kept and of the batches.
        memory: bytes of inputs that are kept at a time; of a layer with more, a random part of each
            call's samples.
        log: says which layers an earlier run finished, and is told of each that is.

    Raises:
        BenchError: no calls, a layer that no call runs, or scales that are not finite or zero.
    """
    steps = 1 if student.step is None else len(student.step)

    def learn(name: str, layer: QuantizedLayer, source: Source, inputs: Inputs) -> None:
        bits = (layer.weight.bits, layer.activation.bits)
        random = generator("learn-scaling", seed, name)
        with torch.enable_grad():
            tau = learn_scaling(source, *inputs, steps, bits, settings, random, _weight(layer))
        if not bool(tau.isfinite().all()) or bool((tau == 0).any()):
            raise BenchError(f"the scales of '{name}' diverged; lower the rate")
        layer.rescale(tau)

    _visit(student, teacher, calls, learn, seed, memory, log)


def search_thresholds(
    student: Student,
    teacher: nn.Module,
    calls: Sequence[Call],
    samples: int = 128,
    *,
    seed: int = 0,
    memory: int = MEMORY,
    log: StageLog | None = None,
) -> None:
    """Set shifts and scales as Outlier Suppression+ does, and quantize tau W, in place.

    Args:
        student: its layers' weights are static; layers without a shift get scales alone.
        teacher: the module the student was made of.
        calls: arguments of the module.
        samples: of a layer's inputs that a threshold is searched on, drawn from all.
        seed: of the samples.
        memory: as in `learn_scalings`.
        log: as in `learn_scalings`.

    Raises:
        BenchError: no calls, or a layer that no call runs.
    """

    def search(name: str, layer: QuantizedLayer, source: Source, inputs: Inputs) -> None:
        assert layer.scaling is not None
        x = inputs[0]
        channels = x.movedim(layer.scaling.axis, 0).flatten(1)
        low, high = channels.amin(1), channels.amax(1)
        random = generator("threshold-samples", seed, name)
        x = x[torch.randperm(len(x), generator=random)[:samples]]
        largest = torch.maximum(-low, high)
        if layer.scaling.shift is not None:
            middle, largest = (low + high) / 2, (high - low) / 2
            layer.scaling.set_shift(middle)
            dims = 0 if layer.scaling.axis == -1 else x.dim() - 2
            x = x - middle.view(-1, *[1] * dims)
        bits = (layer.weight.bits, layer.activation.bits)
        layer.rescale(search_threshold(source, x, largest, bits, _weight(layer)))

    _visit(student, teacher, calls, search, seed, memory, log)


def _visit(
    student: Student,
    teacher: nn.Module,
    calls: Sequence[Call],
    visit: Callable[[str, QuantizedLayer, Source, Inputs], None],
    seed: int,
    memory: int,
    log: StageLog | None,
) -> None:
    """Show every low-bit layer with a scaling its inputs in full precision, as many as fit."""
    if not calls:
        raise BenchError("finding scales needs calibration calls; give at least one")
    student.unfreeze()
    layers = {
        name: layer
        for name, layer in student.low_bit_layers().items()
        if layer.scaling is not None and not (log and log.done(name))
    }
    rows = [step_row(student, call) for call in calls]
    sources = {name: source_name(student.network, name) for name in layers}
    sizes = _sizes(teacher, sources, calls[0])
    with Progress("find scales", total=len(layers)) as progress:
        done = 0
        for names in _groups(sizes, len(calls), memory):
            distinct = list(dict.fromkeys(sources[name] for name in names))
            found = layer_inputs(teacher, distinct, calls, rows, seed, memory)
            for name in names:
                source = teacher.get_submodule(sources[name])
                assert isinstance(source, Source)
                x, places = found[sources[name]]
                visit(name, layers[name], source, (part_input(student.network, name, x), places))
                if log is not None:
                    log.mark(name)
                done += 1
                progress.update(done)


def _weight(layer: QuantizedLayer) -> Tensor:
    """The float weight, of the part that the layer is."""
    assert layer.scaling is not None
    return layer.scaling.weight


def step_row(student: Student, call: Call) -> int:
    """Row of the student's tables for a call; nothing is run."""
    if student.step is None or student.request.timestep_argument is None:
        return 0
    if isinstance(call, Mapping):
        student.step.set(student.timestep_of(**call))
    else:
        student.step.set(student.timestep_of(*call))
    return student.step.index


@torch.no_grad()
def layer_inputs(
    module: nn.Module,
    names: Sequence[str],
    calls: Sequence[Call],
    rows: Sequence[int],
    seed: int,
    memory: int = MEMORY,
) -> dict[str, Inputs]:
    """What layers are given in some calls of a module, on the CPU.

    Args:
        module: that is called.
        names: of layers in it.
        calls: its arguments.
        rows: step of each call.
        seed: of the samples that are kept where not all fit.
        memory: bytes for each layer.

    Returns:
        By name (N, ...) inputs and (N,) int64 rows.

    Raises:
        BenchError: no call runs a layer.
    """
    kept: dict[str, list[Inputs]] = {name: [] for name in names}
    share = memory / len(calls)
    randoms = {name: generator("scaling-samples", seed, name) for name in names}
    row = 0

    def keep(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = _thinned(inputs[0].detach(), share, randoms[name])
        kept[name].append((x, torch.full((len(x),), row)))

    with ExitStack() as hooks:
        for name in names:
            handle = module.get_submodule(name).register_forward_pre_hook(partial(keep, name))
            hooks.callback(handle.remove)
        for call, row in zip(calls, rows, strict=True):  # noqa: B007 - `keep` reads the row
            run_call(module, call)
    for name, parts in kept.items():
        if not parts:
            raise BenchError(f"no call ran '{name}'; leave it in full precision or call it")
    return {
        name: (torch.cat([x for x, _ in parts]), torch.cat([places for _, places in parts]))
        for name, parts in kept.items()
    }


def _thinned(x: Tensor, bytes_at_most: float, random: torch.Generator) -> Tensor:
    """All samples, or as many of them as fit, at least one."""
    size = x.numel() * x.element_size()
    fits = max(1, int(bytes_at_most * len(x) / max(1, size)))
    if fits < len(x):
        index = torch.randperm(len(x), generator=random)[:fits].sort().values
        x = x[index.to(x.device)]
    return x.cpu()


@torch.no_grad()
def _sizes(module: nn.Module, sources: Mapping[str, str], call: Call) -> dict[str, int]:
    """Bytes of each layer's input in a call, in the order in which the call reaches them.

    Args:
        module: that is called.
        sources: the layer in it that each layer of the student stands for.
        call: arguments.
    """
    sizes: dict[str, int] = {}

    def measure(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        sizes[name] = sizes.get(name, 0) + x.numel() * x.element_size()

    with ExitStack() as hooks:
        for source in set(sources.values()):
            handle = module.get_submodule(source).register_forward_pre_hook(
                partial(measure, source)
            )
            hooks.callback(handle.remove)
        run_call(module, call)
    for name, source in sources.items():
        if source not in sizes:
            raise BenchError(f"no call ran '{name}'; leave it in full precision or call it")
    order = list(sizes)
    names = sorted(sources, key=lambda name: order.index(sources[name]))
    return {name: sizes[sources[name]] for name in names}


def _groups(sizes: Mapping[str, int], calls: int, memory: int) -> Iterator[list[str]]:
    """Layers, in order, whose inputs are kept at the same time: as many as fit."""
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if group and total + size * calls > memory:
            yield group
            group, total = [], 0
        group.append(name)
        total += size * calls
    if group:
        yield group
