"""DMQ (ICCV 2025, arXiv 2507.12933): learned equivalent scaling and power-of-two skip factors.

In order: scales tau of every layer's input channels are learned one layer at a time, with weights
and ranges that follow the data (`LearnScaling`); the rounding of tau W is learned block by block
(`RoundWeights`); ranges follow the moving average of each step's extremes (`Calibrate`); on the
skip connections, whose channels differ most, every channel takes a power of two of the step size by
vote (`ChooseFactors`).

Differences from the released code. There, the moving averages go on from one timestep to the next
and while the factors are chosen, and the second half of a split input takes the range of its last
batch; here each step starts afresh and both halves have the average. Its time weights have 20 bins
of 50 timesteps; here a bin is a step, the same for 20 steps. Its scales of a split layer are those
of least error of the sum of both halves; here each half has its own error. Its rounding penalty
leaves the second half of a split layer out; here it counts both. Ranges come from inputs that only
the weights before them have changed; there, from quantized ones.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import text_option
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stage_scaling import ChooseFactors, LearnScaling
from hqdm_bench.methods.stages import Calibrate, RoundWeights, Stage
from hqdm_bench.quantization import (
    POLICY_SAYS,
    ChannelScaling,
    LearnedStep,
    QuantizedLayer,
    ScalingSettings,
    ShiftedTable,
    check_policy,
    source_name,
)
from hqdm_bench.quantization.blocks import Kind

__all__ = ["DmqOptions", "build"]

BLOCKS: tuple[Kind, ...] = ("residual", "transformer")  # attention over pixels layer by layer
SKIPS = ("skip_connection", "conv_shortcut")  # CompVis, diffusers
SETTINGS = {
    "imagenet": ScalingSettings(),
    "bedrooms": ScalingSettings(),
    "churches": ScalingSettings(iterations=4000, alpha=25.0),
}


@dataclass(frozen=True)
class DmqOptions(PtqOptions):
    """The common options, with what DMQ quantizes and how, and those of its parts.

    Attributes:
        dataset: whose released settings of the scales: 6000 updates at alpha 20, or for
            ``churches`` 4000 at alpha 25.
        factors: of the skip connections' step sizes: voted on for each step (``per_step``, released
            code), once over all steps (``shared``, text), or ``none``.
    """

    policy: str = text_option("dmq", check_policy, POLICY_SAYS)
    activation_range: Literal["mse", "minmax", "ema", "ema_zero"] = "ema"
    split: Literal["none", "skip", "all"] = "skip"
    dataset: Literal["imagenet", "bedrooms", "churches"] = "imagenet"
    factors: Literal["per_step", "shared", "none"] = "per_step"

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default) and ``as_paper``."""
        return {"as_code": cls(), "as_paper": cls(factors="shared")}

    def stages(self) -> tuple[Stage, ...]:
        """Scales, rounding with exact inputs, ranges, factors of the skip connections."""
        factors = () if self.factors == "none" else (ChooseFactors(),)
        return (
            LearnScaling(SETTINGS[self.dataset]),
            RoundWeights(blocks=BLOCKS),
            Calibrate(),
            *factors,
        )


@register(
    "dmq", DmqOptions, title="DMQ", paper="Lee et al., ICCV 2025, https://arxiv.org/abs/2507.12933"
)
def build(options: DmqOptions, module: nn.Module, request: Request) -> Student:
    """A DMQ student with scales of 1, rounded to nearest, not calibrated."""
    scaling = partial(
        ChannelScaling,
        rule=options.weight_init,
        per_channel=options.weight_grids == "channel",
    )
    student = build_ptq_student(options, module, request, scaling=scaling)
    for name, layer in student.low_bit_layers().items():
        own_name = source_name(student.network, name).rpartition(".")[2]
        plain = layer.activation  # exact where a policy says so
        if options.factors != "none" and own_name in SKIPS and isinstance(plain, LearnedStep):
            layer.activation = _shifted_table(layer, plain, options.factors == "shared")
    return student.eval()


def _shifted_table(layer: QuantizedLayer, plain: LearnedStep, shared: bool) -> ShiftedTable:
    """In the place of a quantizer whose channels have one step size."""
    table = ShiftedTable(
        plain.bits,
        plain.steps,
        layer.in_channels,
        axis=-1 if layer.linear else 1,
        symmetric=plain.zero is None,
        shared=shared,
    )
    return table.to(layer.weight.scale).requires_grad_(False)
