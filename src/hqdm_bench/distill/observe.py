"""Activation ranges, step by step, from calls of any quantized module."""

import contextlib
import copy
import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill.calls import Call, run_call
from hqdm_bench.distill.probes import PassThrough, probing
from hqdm_bench.distill.smoothing import recorded_extremes
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.methods import Student
from hqdm_bench.quantization import (
    ActivationQuantizer,
    AffineStatic,
    ChannelStep,
    EmaObserver,
    ExactInput,
    LearnedStep,
    MakeObserver,
    MinMaxObserver,
    MseObserver,
    Observer,
    QuantizedInput,
    QuantizedLayer,
)
from hqdm_bench.quantization.observers import SAMPLE, observer_for, thin

__all__ = ["SAMPLE", "calibrate_on_calls", "observer_of"]


@torch.no_grad()
def calibrate_on_calls(
    student: Student,
    calls: Sequence[Call],
    sample: int = SAMPLE,
    observer: MakeObserver | None = None,
) -> None:
    """Set every activation range from example calls, in place; ranges of before are forgotten.

    Each row of a step table takes the mean-error range of the layer's input at this step, as its
    quantizer will see it: centred and rotated where the layer does so, on the layer's own grid. The
    operands of quantized attention are treated like inputs of layers.
    Inputs come from the network with quantized weights and exact activations, so no layer's range
    depends on another's. A fixed stride keeps at most ``sample`` values of an input. Layers with a
    centre get it from a first pass over the calls; layers that may choose are rotated if the
    squared error of the grid, summed over the steps, is smaller for it. Static layers take one
    range over all calls.

    Args:
        student: a full-precision student is left alone.
        calls: arguments of the module, a sequence of positional ones or a mapping by name; calls at
            the same timestep follow each other, and every timestep of the tables occurs.
        sample: values of a layer's input that the search of one call looks at. Rare extreme values
            between them are clipped, which shows at 8 bits and more; a larger number takes longer.
        observer: makes what turns the inputs at a step into a grid, such as `EmaObserver`; None
            for what the student's option ``activation_range`` says, or the mean-error search.
            Layers that may choose their rotation are searched anyway.

    Raises:
        BenchError: calls of one timestep are apart, or a timestep has none.
    """
    if student.step is None:
        return
    student.unfreeze()
    for holder in student.quantized_inputs().values():
        holder.activation.forget()
    _smooth(student, calls)
    _centre(student, calls)
    make = observer or observer_of(student, sample)
    with probing(student, functools.partial(_StepProbe, sample=sample, make=make)) as probes:
        for call in calls:
            run_call(student, call)
        for probe in probes:
            probe.finish()
    _require_complete(student)


def observer_of(student: Student, sample: int = SAMPLE) -> MakeObserver:
    """What a student's options ask for.

    Args:
        student: with or without option ``activation_range``.
        sample: see `calibrate_on_calls`.
    """
    kinds: dict[str, MakeObserver] = {
        "mse": functools.partial(MseObserver, sample),
        "minmax": MinMaxObserver,
        "ema": functools.partial(EmaObserver, shuffled=True),
        "ema_zero": functools.partial(EmaObserver, include_zero=True, shuffled=True),
    }
    wanted = student.options.resolved().get("activation_range", "mse")
    if wanted == "ema_above_a4":
        wanted = "ema" if student.bits.activation > 4 else "minmax"
    return kinds[wanted]


def _smooth(student: Student, calls: Sequence[Call]) -> None:
    """Set the scales that calibration sets, by the extremes of the inputs in all calls."""
    with probing(student, PassThrough), recorded_extremes(student) as extremes:
        if not extremes:
            return
        for call in calls:
            run_call(student, call)
    for found in extremes:
        found.smooth()


def _centre(student: Student, calls: Sequence[Call]) -> None:
    """Set the centre of every layer that has one to the channel means of its inputs."""
    layers = [layer for layer in student.quantized_layers().values() if layer.centre is not None]
    if not layers:
        return
    means = [_ChannelMeans(layer) for layer in layers]
    with probing(student, PassThrough), contextlib.ExitStack() as hooks:
        for layer, mean in zip(layers, means, strict=True):
            handle = layer.register_forward_pre_hook(mean)
            hooks.callback(handle.remove)
        for call in calls:
            run_call(student, call)
    for mean in means:
        mean.store()


class _ChannelMeans:
    """Forward pre-hook that adds up a layer's inputs by step and channel."""

    def __init__(self, layer: QuantizedLayer) -> None:
        assert layer.centre is not None
        self.layer = layer
        layer.centre.zero_()
        self.sums = torch.zeros_like(layer.centre, dtype=torch.float64)
        self.counts = torch.zeros_like(self.sums[:, :1])

    def __call__(self, layer: QuantizedLayer, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        row = layer.step.index
        rows = x.flatten(0, -2) if layer.linear else x.transpose(0, 1).flatten(1).t()
        self.sums[row] += rows.double().sum(0)
        self.counts[row] += len(rows)

    def store(self) -> None:
        """Hand the means to the layer."""
        assert self.layer.centre is not None
        self.layer.centre.copy_(self.sums / self.counts.clamp(min=1))


class _StepProbe(nn.Module):
    """Set a row of the quantizer from the inputs at its step, and pass them on as they are."""

    def __init__(self, holder: QuantizedInput, sample: int, make: MakeObserver) -> None:
        super().__init__()
        self.sample = sample
        self.make: MakeObserver = make
        self.quantizer: ActivationQuantizer = holder.activation
        self.row: int | None = None
        self.done: set[int] = set()
        self.observer: Observer | None = None
        self.samples: list[Tensor] = []
        self.plain: _Unrotated | None = None
        # In a list: the layer holds this module, a cycle torch cannot walk.
        self.choosing: list[QuantizedLayer] = []
        if isinstance(holder, QuantizedLayer) and holder.rotates_input is not None:
            holder.switch_rotation(True)
            self.plain = _Unrotated(holder.activation)
            self.choosing.append(holder)

    def forward(self, x: Tensor, row: int, rotation: BlockRotation | None = None) -> Tensor:
        if isinstance(self.quantizer, ExactInput):
            return x
        static = _one_range(self.quantizer)
        if row != self.row and not static:
            self._set_row()
            if row in self.done:
                raise BenchError("calls of one timestep are apart; group them by timestep")
        self.row = row
        seen = x if rotation is None else rotation(x)
        if self.plain is None:
            self.observer = self.observer or observer_for(self.quantizer, self.make)
            if isinstance(self.quantizer, ChannelStep):
                seen = self.quantizer.by_channel(seen)
            self.observer.observe(seen)
        else:
            self.samples.append(thin(seen, self.sample))
            self.plain.samples.append(thin(x, self.sample))
        return x

    def finish(self) -> None:
        """Set the last row, a static quantizer's one range, and the choice of rotation."""
        self._set_row()
        if self.plain is not None and self.plain.better:
            self.quantizer.load_state_dict(self.plain.quantizer.state_dict())
            for layer in self.choosing:
                layer.switch_rotation(False)

    def _set_row(self) -> None:
        if self.row is None:
            return
        if self.observer is not None:
            self.observer.store(self.quantizer, self.row)
        if self.plain is not None and self.samples:
            sample = torch.cat(self.samples)
            self.quantizer.calibrate(sample, self.row)
            self.plain.compare(self.row, self.quantizer, sample)
        self.samples, self.observer = [], None
        self.done.add(self.row)


def _one_range(quantizer: ActivationQuantizer) -> bool:
    """Whether one range serves all steps, and is therefore of the inputs at all of them."""
    learned = isinstance(quantizer, LearnedStep)
    return isinstance(quantizer, AffineStatic) or (learned and quantizer.steps == 1)


class _Unrotated:
    """What the quantizer would be without the rotation, and the errors of both."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        self.quantizer = copy.deepcopy(quantizer)
        self.samples: list[Tensor] = []
        self.error = self.rotated_error = 0.0

    @property
    def better(self) -> bool:
        """Whether the input is quantized with less error as it is."""
        return self.error < self.rotated_error

    def compare(self, row: int, rotated: ActivationQuantizer, sample: Tensor) -> None:
        """Set the row and add up the mean squared errors."""
        plain = torch.cat(self.samples)
        self.samples = []
        self.quantizer.calibrate(plain, row)
        self.error += _error(self.quantizer, plain, row)
        self.rotated_error += _error(rotated, sample, row)


def _error(quantizer: ActivationQuantizer, sample: Tensor, row: int) -> float:
    return float((quantizer(sample, row) - sample).double().square().mean())


def _require_complete(student: Student) -> None:
    """Name the timesteps that no call had, by the first layer that lacks a range."""
    assert student.step is not None
    if student.calibrated:
        return
    for name, holder in student.quantized_inputs().items():
        scale = holder.activation.scale
        unset = ~scale.isfinite().reshape(len(scale), -1).all(1)
        missing = unset.nonzero().flatten().tolist()
        if missing and len(scale) == len(student.step):
            times = ", ".join(str(student.step.timesteps[row]) for row in missing)
            raise BenchError(f"no call ran '{name}' at timestep {times}; add calls there")
        if missing:
            raise BenchError(f"no call ran '{name}'; leave it in full precision or call it")
