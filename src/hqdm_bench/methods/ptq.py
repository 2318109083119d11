"""Building a student that is calibrated and not trained: what the post-training methods share."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions, text_option
from hqdm_bench.methods.qat import STATIC_BITS
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stages import Calibrate, Stage
from hqdm_bench.quantization import (
    ActivationQuantizer,
    AffineStatic,
    LearnedStep,
    QuantizedLayer,
    StaticWeight,
    StepIndex,
    UnsignedStep,
    check_policy,
    quantize_attention,
    replace,
    roles,
)

__all__ = ["PtqOptions", "build_ptq_student", "quantize_products"]


@dataclass(frozen=True)
class PtqOptions(MethodOptions):
    """Options that every post-training student has.

    Attributes:
        policy: which layers are quantized, and how, as for the trained methods (see `roles`).
        weight_init: range search behind the weight grids.
        weight_grids: one an output ``channel``, or one a ``tensor``.
        activation_grid: ``asymmetric``, 0 to 2^b - 1 with an integer zero-point, or ``symmetric``,
            -2^(b-1) to 2^(b-1) - 1.
        activation_range: of a layer's inputs: ``mse`` search, ``minmax`` over all batches, or
            ``ema``, the moving average of the batches' extremes.
        activation_steps: ``per_step``, one range for every timestep of the tables, or ``shared``,
            one for all.
        steps: row of the tables at a timestep they have no row for, see `QatOptions`.
        attention: the products inside attention are in ``full_precision``, or ``quantized`` with
            query, key and value on the activations' grids.
        softmax_bits: of the softmax's output where these products are quantized, on the grid 0 to
            2^b - 1 with zero-point 0 (Q-Diffusion's default 8, and its 16 for text-to-image).
    """

    policy: str = text_option(
        "official", check_policy, "official or full, then rules such as '; *.to_q = full_precision'"
    )
    weight_init: Literal["mse", "max"] = "mse"
    weight_grids: Literal["channel", "tensor"] = "channel"
    activation_grid: Literal["asymmetric", "symmetric"] = "asymmetric"
    activation_range: Literal["mse", "minmax", "ema"] = "mse"
    activation_steps: Literal["per_step", "shared"] = "per_step"
    steps: Literal["pick", "interpolate", "by_timestep"] = "pick"
    attention: Literal["full_precision", "quantized"] = "full_precision"
    softmax_bits: Literal[8, 16] = 8

    def stages(self) -> tuple[Stage, ...]:
        """Ranges alone."""
        return (Calibrate(),)

    @property
    def post_training(self) -> bool:
        """Calibrated for a sampler."""
        return True


def build_ptq_student(
    options: PtqOptions,
    module: nn.Module,
    request: Request,
    activation: Callable[[int], ActivationQuantizer] | None = None,
) -> Student:
    """Copy a module and put quantized layers in, weights rounded to nearest, nothing trainable.

    Reconstruction may learn the rounding and the step sizes afterwards.

    Args:
        options: common options.
        module: any module with Linear, Conv1d or Conv2d layers; not changed.
        request: bits and step table.
        activation: makes the input quantizer of a low-bit layer from its bits; None for the one
            that the options say.

    Raises:
        BenchError: full-precision bits, a layer the policy selects cannot be quantized, or
            quantized attention in a module without any that can be.
    """
    if request.bits.full_precision:
        raise BenchError(f"this method quantizes; {request.bits} goes with method 'fp'")
    step = StepIndex(request.timesteps, options.steps)
    network = copy.deepcopy(module).requires_grad_(False).eval()
    for name, role in roles(options.policy, network).items():
        if role == "full_precision":
            continue
        source = network.get_submodule(name)
        assert isinstance(source, (nn.Conv1d, nn.Conv2d, nn.Linear))
        low_bit = role == "low_bit"
        quantizer: ActivationQuantizer = AffineStatic(STATIC_BITS)
        if low_bit and activation is not None:
            quantizer = activation(request.bits.activation)
        elif low_bit:
            quantizer = _activation(options, request)
        weight = StaticWeight.from_float(
            source.weight,
            request.bits.weight if low_bit else STATIC_BITS,
            options.weight_init,
            per_channel=options.weight_grids == "channel",
        )
        layer = QuantizedLayer(source, weight, quantizer, step, low_bit=low_bit)
        replace(network, name, layer.to(source.weight).requires_grad_(False))
    quantize_products(options, network, request, step)
    return Student(network, step, options, request).eval()


def quantize_products(
    options: PtqOptions, network: nn.Module, request: Request, step: StepIndex
) -> None:
    """Put quantized attention in, in place, where the options ask for it; not calibrated.

    Raises:
        BenchError: the network has no attention that can be quantized, or bits are given for the
            softmax of one in full precision.
    """
    if options.attention == "full_precision":
        if options.softmax_bits != PtqOptions.softmax_bits:
            raise BenchError(
                f"softmax_bits is {options.softmax_bits}, but attention is in full precision; add "
                "option attention 'quantized' or leave softmax_bits out"
            )
        return
    names = quantize_attention(
        network,
        lambda: _activation(options, request),
        lambda: UnsignedStep(options.softmax_bits, _rows(options, request)),
        step,
    )
    for name in names:
        network.get_submodule(name).requires_grad_(False)


def _activation(options: PtqOptions, request: Request) -> LearnedStep:
    symmetric = options.activation_grid == "symmetric"
    return LearnedStep(request.bits.activation, _rows(options, request), symmetric=symmetric)


def _rows(options: PtqOptions, request: Request) -> int:
    """Of the tables of activations."""
    return request.steps if options.activation_steps == "per_step" else 1
