"""From a trained student to one that multiplies integers."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer.backends import Backend, choose_kernel
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.kernels import Kernel
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.packing import pack
from hqdm_bench.integer.report import ConversionReport, LayerReport, describe
from hqdm_bench.integer.spec import LayerSpec
from hqdm_bench.integer.student import IntegerStudent
from hqdm_bench.methods import Student
from hqdm_bench.quantization import (
    AffineTable,
    ChannelStep,
    ExactInput,
    QuantizedLayer,
    ShiftedTable,
    StaticWeight,
    StepIndex,
)

__all__ = ["convert"]

MOST_BITS = 8


def convert(student: Student, backend: Backend = "auto") -> IntegerStudent:
    """Make every quantized layer of a student multiply integers.

    The codes of weights and inputs are those of the student, bit for bit; so are the sums. Skip
    connections and whatever else the policy leaves in full precision stay as they are, and so do
    quantized products inside attention, fake-quantized.

    Args:
        student: calibrated, usually trained; not changed.
        backend: see `choose_kernel`.

    Returns:
        A student called like the one given, with its noise correction. ``report`` tells what became
        of each layer; one above 8 bits, with an exact input, or padded differently on its two
        sides, is still fake-quantized.

    Raises:
        BenchError: nothing to convert, not calibrated, step sizes for each input channel, a
            zero-point that is no integer, sums that could leave 32 bits, a student not in float32
            or not on the device of the backend, or a backend that does not work on this machine.
    """
    layers = student.quantized_layers()
    if not layers or student.step is None:
        raise BenchError(f"method '{student.method}' has no quantized layers to make integer")
    if not student.calibrated:
        raise BenchError("the student's activation ranges are not set; calibrate it first")
    kernel, why = choose_kernel(backend, _device_of(student))
    step = StepIndex(student.step.timesteps, student.step.between)
    integer: dict[str, IntegerLayer] = {}
    kept: dict[str, LayerReport] = {}
    for name, layer in layers.items():
        _refuse_channel_steps(name, layer)
        reason = _obstacle(layer)
        if reason is not None:
            kept[name] = LayerReport(name, False, reason)
            continue
        _check_layer(name, layer, kernel)
        integer[name] = IntegerLayer(_spec(layer), _tensors(layer), step, kernel, name)
    described = {entry.name: entry for entry in describe(integer)} | kept
    attention = tuple(student.quantized_attention())
    described_layers = tuple(described[name] for name in layers)
    report = ConversionReport(kernel.name, why, described_layers, attention)
    network = _replaced(student, integer, step)
    made = IntegerStudent(network, step, student.options, student.request, report)
    made.method = student.method
    made.noise_correction = copy.deepcopy(student.noise_correction)
    return made


def _device_of(student: Student) -> str:
    return next(iter(student.quantized_layers().values())).activation.scale.device.type


def _refuse_channel_steps(name: str, layer: QuantizedLayer) -> None:
    """A student that no integer arithmetic can have, as opposed to a layer without a kernel."""
    if isinstance(layer.activation, ChannelStep):
        raise BenchError(
            f"layer '{name}': each of its {layer.activation.channels} input channels has a step "
            "size of its own, which does not come out of an integer sum over the channels; build "
            "the student with activation_channels 'tensor'"
        )


def _obstacle(layer: QuantizedLayer) -> str | None:
    if isinstance(layer.activation, ExactInput):
        return "its input is not quantized"
    if layer.weight.bits > MOST_BITS or layer.activation.bits > MOST_BITS:
        return f"w{layer.weight.bits}a{layer.activation.bits} does not fit bytes"
    if layer.scaling is not None:
        return "its input channels are scaled in floating point before they are quantized"
    if isinstance(layer.activation, ShiftedTable):
        return "the step size of its input differs between channels"
    try:
        Geometry.of(layer.geometry, tuple(layer.weight.shape[2:]))
    except ValueError as error:
        return str(error)
    return None


def _check_layer(name: str, layer: QuantizedLayer, kernel: type[Kernel]) -> None:
    scale = layer.activation.scale
    if scale.device.type != kernel.device or scale.dtype != torch.float32:
        raise BenchError(
            f"layer '{name}' is {scale.dtype} on {scale.device}; backend '{kernel.name}' needs "
            f"float32 on {kernel.device}: convert student.float().to('{kernel.device}')"
        )
    # A negative one, which training can reach, only turns the signs of the codes.
    if not bool(torch.isfinite(scale).all()) or bool((scale == 0).any()):
        raise BenchError(
            f"layer '{name}': a step size of its input is zero or not finite; training diverged, "
            "lower the learning rate"
        )
    zero = layer.activation.zero
    if zero is None or getattr(layer.activation, "integer_zero", False):
        return
    zero = zero.detach()
    wrong = (zero != zero.round()).nonzero().flatten().tolist()
    if wrong:
        raise BenchError(
            f"layer '{name}': the zero-point of its input is {float(zero[wrong[0]]):.4f} at row "
            f"{wrong[0]} of the step table ({len(wrong)} of {len(zero)} rows are no integers), so "
            "its values are on no integer grid; train with option zero_points 'integer'"
        )


def _spec(layer: QuantizedLayer) -> LayerSpec:
    low, high = layer.activation.limits
    activation = layer.activation
    return LayerSpec(
        Geometry.of(layer.geometry, tuple(layer.weight.shape[2:])),
        tuple(layer.weight.shape),
        _code_bits(layer),
        layer.weight.steps,
        low,
        high,
        isinstance(activation, AffineTable) and activation.integer_zero,
        None if layer.switched_off else layer.rotation,
        layer.weight_is_rotated,
    )


def _code_bits(layer: QuantizedLayer) -> int:
    """Bits of a stored code: where channels have different bits, those of the widest."""
    weight = layer.weight
    return weight.code_bits if isinstance(weight, StaticWeight) else weight.bits


def _tensors(layer: QuantizedLayer) -> Mapping[str, Tensor]:
    weight = layer.weight
    steps = weight.steps
    scale = weight.scale.detach()
    if steps is None:
        # A weight with one step size for all output channels has a single entry.
        scale = scale.expand_as(weight.zero).flatten()
        packed = pack(weight.effective_codes(), _code_bits(layer))
    else:
        rows = [pack(weight.effective_codes(row), weight.bits) for row in range(steps)]
        packed, scale = torch.stack(rows), scale.flatten(1)
    found: dict[str, Tensor | None] = {
        "packed": packed,
        "weight_scale": scale,
        "weight_zero": weight.zero.flatten().to(torch.int16),
        "bias": layer.bias,
        "scale": layer.activation.scale,
        "zero": layer.activation.zero,
        "signs": layer.signs,
        "centre": layer.centre,
    }
    return {key: value.detach().clone() for key, value in found.items() if value is not None}


def _replaced(student: Student, integer: Mapping[str, IntegerLayer], step: StepIndex) -> nn.Module:
    """A copy of the network with integer layers; what they replace is not copied."""
    layers = student.quantized_layers()
    instead: dict[int, object] = {id(layers[name]): new for name, new in integer.items()}
    assert student.step is not None
    instead[id(student.step)] = step
    return copy.deepcopy(student.network, instead)
