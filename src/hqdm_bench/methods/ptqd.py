"""PTQD (He et al., NeurIPS 2023): a quantized model whose sampler knows its errors.

The network is quantized as in BRECQ, weights per tensor. Then the error of its predictions is
measured along full-precision paths and taken out where it is correlated with the prediction or
constant; the rest is taken for part of the sampler's own noise.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import text_option
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stages import (
    Calibrate,
    CorrectNoise,
    LearnSteps,
    RoundingFit,
    RoundWeights,
    Stage,
    StepFit,
)
from hqdm_bench.quantization import POLICY_SAYS, NoiseCorrection, QuantizedLayer, check_policy

__all__ = ["PtqdOptions", "build"]

ROUNDING = RoundingFit(updates=10_000, batch=8)
STEPS = StepFit(batch=16)


@dataclass(frozen=True)
class PtqdOptions(PtqOptions):
    """The common options at PTQD's values, and those of the correction.

    The step-aware mixed precision of the paper is in no released code and not here.

    Attributes:
        correction: whether the sampler is corrected.
        bias: what is taken off before the division by 1 + k: the mean of the whole ``error``
            (released code), or of the ``residual`` (the paper's text).
        direction: DDIM's direction term ``follows`` the reduced noise (released code) or is
            ``kept`` (the paper's text).
    """

    policy: str = text_option("ptqd", check_policy, POLICY_SAYS)
    weight_grids: Literal["channel", "tensor"] = "tensor"
    activation_steps: Literal["per_step", "shared"] = "shared"
    correction: Literal["yes", "no"] = "yes"
    bias: Literal["error", "residual"] = "error"
    direction: Literal["follows", "kept"] = "follows"

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """The released code, and the text."""
        return {"as_code": cls(), "as_paper": cls(bias="residual", direction="kept")}

    @property
    def calibration_images(self) -> int:
        """1024 inputs over 20 steps, as released; guidance makes two inputs of an image."""
        return 51

    def stages(self) -> tuple[Stage, ...]:
        """Rounding with exact inputs, ranges, step sizes, correction."""
        correction = (CorrectNoise(),) if self.correction == "yes" else ()
        return (RoundWeights(ROUNDING), Calibrate(), LearnSteps(STEPS), *correction)


@register(
    "ptqd",
    PtqdOptions,
    title="PTQD",
    paper="He et al., NeurIPS 2023, https://arxiv.org/abs/2305.10657",
)
def build(options: PtqdOptions, module: nn.Module, request: Request) -> Student:
    """A PTQD student, rounded to nearest, not calibrated, its correction not measured."""
    student = build_ptq_student(options, module, request)
    if options.correction == "yes":
        student.noise_correction = NoiseCorrection(
            request.timesteps,
            _out_channels(student.network),
            bias=options.bias,
            direction=options.direction,
        )
    return student


def _out_channels(network: nn.Module) -> int:
    """Channels of the prediction: rows of the weight that comes last in module order."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear, QuantizedLayer)
    layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
    return int(layers[-1].weight.shape[0])
