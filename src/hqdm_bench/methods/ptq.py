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
    POLICY_SAYS,
    ActivationQuantizer,
    AffineStatic,
    ExactInput,
    LearnedStep,
    QuantizedLayer,
    Role,
    StaticWeight,
    StepIndex,
    check_policy,
    replace,
    roles,
)

__all__ = ["PtqOptions", "build_ptq_student"]


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
            ``ema``, the moving average of the batches' extremes, ``ema_zero`` the same widened to
            zero.
        activation_steps: ``per_step``, one range for every timestep of the tables, or ``shared``,
            one for all.
        steps: row of the tables at a timestep they have no row for, see `QatOptions`.
    """

    policy: str = text_option("official", check_policy, POLICY_SAYS)
    weight_init: Literal["mse", "max"] = "mse"
    weight_grids: Literal["channel", "tensor"] = "channel"
    activation_grid: Literal["asymmetric", "symmetric"] = "asymmetric"
    activation_range: Literal["mse", "minmax", "ema", "ema_zero"] = "mse"
    activation_steps: Literal["per_step", "shared"] = "per_step"
    steps: Literal["pick", "interpolate", "by_timestep"] = "pick"

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
        activation: makes the input quantizer of a low-bit layer, and of one with an 8-bit input,
            from its bits; None for the one that the options say.

    Raises:
        BenchError: full-precision bits, or a layer the policy selects cannot be quantized.
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
        low_bit = role != "static_8bit"
        quantizer = _quantizer(role, options, request, activation)
        weight = StaticWeight.from_float(
            source.weight,
            request.bits.weight if low_bit else STATIC_BITS,
            options.weight_init,
            per_channel=options.weight_grids == "channel",
        )
        layer = QuantizedLayer(source, weight, quantizer, step, low_bit=low_bit)
        replace(network, name, layer.to(source.weight).requires_grad_(False))
    return Student(network, step, options, request).eval()


def _quantizer(
    role: Role,
    options: PtqOptions,
    request: Request,
    activation: Callable[[int], ActivationQuantizer] | None,
) -> ActivationQuantizer:
    """What quantizes the input of a layer."""
    if role == "static_8bit":
        return AffineStatic(STATIC_BITS)
    if role == "weight_only":
        return ExactInput()
    bits = STATIC_BITS if role == "input_8bit" else request.bits.activation
    if activation is not None:
        return activation(bits)
    rows = request.steps if options.activation_steps == "per_step" else 1
    return LearnedStep(bits, rows, symmetric=options.activation_grid == "symmetric")
