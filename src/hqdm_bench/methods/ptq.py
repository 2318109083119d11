"""Building a student that is calibrated and not trained: what the post-training methods share."""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions, text_option
from hqdm_bench.methods.ptq_layers import LayerMaker, MakeScaling
from hqdm_bench.methods.qat import STATIC_BITS
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stages import Calibrate, Stage
from hqdm_bench.quantization import (
    POLICY_SAYS,
    ActivationQuantizer,
    AffineStatic,
    ExactInput,
    LearnedStep,
    Role,
    StepIndex,
    UnsignedStep,
    boundaries,
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
            ``ema``, the moving average of the batches' extremes, ``ema_zero`` the same widened to
            zero; ``ema_above_a4`` is ``ema`` above 4 bits and ``minmax`` below.
        activation_steps: ``per_step``, one range for every timestep of the tables, or ``shared``,
            one for all.
        steps: row of the tables at a timestep they have no row for, see `QatOptions`.
        split: layers of a UNet whose input is a concatenation, as two with grids of their own, see
            `boundaries`: ``skip``, the skip connections, as Q-Diffusion and DMQ release it (the
            policy must quantize them, ``official`` does not); ``all``, the first convolutions of
            these blocks, too; ``none``.
        outlier_split: outlier channel splitting (Zhao et al., ICML 2019): this percentage of the
            input channels of every low-bit layer, those with the largest weights, is given twice.
        mixed: bits of the output channels of a low-bit layer: ``none``, all alike, or ``kurtosis``,
            a bit more for the tenth with the heaviest tails and a bit less for as many, if that
            lowers the error of the weight (MPQ-DM). Weights of 2 and 8 bits stay as they are:
            less or more does not exist, and the mean is kept.
        attention: the products inside attention are in ``full_precision``, or ``quantized`` with
            query, key and value on the activations' grids.
        softmax_bits: of the softmax's output where these products are quantized, on the grid 0 to
            2^b - 1 with zero-point 0 (Q-Diffusion's default 8, and its 16 for text-to-image).
    """

    policy: str = text_option("official", check_policy, POLICY_SAYS)
    weight_init: Literal["mse", "max"] = "mse"
    weight_grids: Literal["channel", "tensor"] = "channel"
    activation_grid: Literal["asymmetric", "symmetric"] = "asymmetric"
    activation_range: Literal["mse", "minmax", "ema", "ema_zero", "ema_above_a4"] = "mse"
    activation_steps: Literal["per_step", "shared"] = "per_step"
    steps: Literal["pick", "interpolate", "by_timestep"] = "pick"
    split: Literal["none", "skip", "all"] = "none"
    outlier_split: Literal[0, 1, 2, 5, 10] = 0
    mixed: Literal["none", "kurtosis"] = "none"
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
    scaling: MakeScaling | None = None,
) -> Student:
    """Copy a module and put quantized layers in, weights rounded to nearest, nothing trainable.

    Reconstruction may learn the rounding and the step sizes afterwards.

    Args:
        options: common options.
        module: any module with Linear, Conv1d or Conv2d layers; not changed.
        request: bits and step table.
        activation: makes the input quantizer of a low-bit layer, and of one with an 8-bit input,
            from its bits; None for the one that the options say.
        scaling: makes the scaling of a low-bit layer's input channels from its float weight and
            whether it is linear; None for none.

    Raises:
        BenchError: full-precision bits, a layer the policy selects cannot be quantized, quantized
            attention in a module whose only ones cannot be, or options that exclude each other.
    """
    if request.bits.full_precision:
        raise BenchError(f"this method quantizes; {request.bits} goes with method 'fp'")
    if options.mixed != "none" and options.weight_grids != "channel":
        raise BenchError(
            f"mixed '{options.mixed}' gives channels different bits, which takes a grid for each; "
            "set weight_grids 'channel'"
        )
    step = StepIndex(request.timesteps, options.steps)
    network = copy.deepcopy(module).requires_grad_(False).eval()
    joints = boundaries(network, options.split)
    layers = _makers(options, request, activation, scaling, step)
    for name, role in roles(options.policy, network).items():
        if role == "full_precision":
            continue
        source = network.get_submodule(name)
        assert isinstance(source, (nn.Conv1d, nn.Conv2d, nn.Linear))
        made = layers[role].make(source, joints.get(name))
        replace(network, name, made.to(source.weight).requires_grad_(False))
    quantize_products(options, network, request, step)
    return Student(network, step, options, request).eval()


def _makers(
    options: PtqOptions,
    request: Request,
    activation: Callable[[int], ActivationQuantizer] | None,
    scaling: MakeScaling | None,
    step: StepIndex,
) -> dict[Role, LayerMaker]:
    """What becomes of a layer by its role."""
    make = activation or partial(_activation, options, request)
    low_bit = LayerMaker(
        weight_bits=request.bits.weight,
        weight_init=options.weight_init,
        per_channel=options.weight_grids == "channel",
        activation=partial(make, request.bits.activation),
        step=step,
        low_bit=True,
        mixed=options.mixed == "kurtosis",
        outlier_split=options.outlier_split,
        scaling=scaling,
    )
    static = dataclasses.replace(
        low_bit,
        weight_bits=STATIC_BITS,
        activation=partial(AffineStatic, STATIC_BITS),
        low_bit=False,
        mixed=False,
        outlier_split=0,
        scaling=None,
    )
    return {
        "low_bit": low_bit,
        "static_8bit": static,
        "weight_only": dataclasses.replace(low_bit, activation=ExactInput, scaling=None),
        "input_8bit": dataclasses.replace(low_bit, activation=partial(make, STATIC_BITS)),
    }


def quantize_products(
    options: PtqOptions, network: nn.Module, request: Request, step: StepIndex
) -> None:
    """Put quantized attention in, in place, where the options ask for it; not calibrated.

    Raises:
        BenchError: the network's only attentions are of a kind that cannot be quantized, or bits
            are given for the softmax of one in full precision.
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
        lambda: _activation(options, request, request.bits.activation),
        lambda: UnsignedStep(options.softmax_bits, _rows(options, request)),
        step,
    )
    for name in names:
        network.get_submodule(name).requires_grad_(False)


def _activation(options: PtqOptions, request: Request, bits: int) -> LearnedStep:
    symmetric = options.activation_grid == "symmetric"
    return LearnedStep(bits, _rows(options, request), symmetric=symmetric)


def _rows(options: PtqOptions, request: Request) -> int:
    """Of the tables of activations."""
    return request.steps if options.activation_steps == "per_step" else 1
