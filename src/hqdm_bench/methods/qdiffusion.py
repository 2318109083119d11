"""Q-Diffusion (Li et al., ICCV 2023): block reconstruction on inputs from all timesteps.

Weights per output channel with learned rounding, block by block, then the step sizes of the inputs,
block by block; one set of ranges for all timesteps.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import text_option
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stages import Calibrate, LearnSteps, RoundWeights, Stage
from hqdm_bench.quantization import POLICY_SAYS, check_policy

__all__ = ["QDiffusionOptions", "build"]


@dataclass(frozen=True)
class QDiffusionOptions(PtqOptions):
    """The common options at Q-Diffusion's values.

    The defaults are those of the script for churches, whose asymmetric grids also serve models
    that the authors have no script for; the one for bedrooms (preset ``as_code_bedrooms``) has
    symmetric grids over moving averages of the extremes. The shortcut split is part of the method
    by its text (``as_paper``), and not switched on in the released script for latent diffusion.

    Attributes:
        learned_steps: whether the step sizes of the inputs are learned after calibration.
    """

    policy: str = text_option("full", check_policy, POLICY_SAYS)
    activation_steps: Literal["per_step", "shared"] = "shared"
    attention: Literal["full_precision", "quantized"] = "quantized"
    learned_steps: Literal["yes", "no"] = "yes"

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """The released scripts, and the text."""
        bedrooms = cls(activation_grid="symmetric", activation_range="ema")
        return {"as_code": cls(), "as_code_bedrooms": bedrooms, "as_paper": cls(split="skip")}

    def stages(self) -> tuple[Stage, ...]:
        """Rounding with exact inputs, ranges, step sizes."""
        steps = (LearnSteps(),) if self.learned_steps == "yes" else ()
        return (RoundWeights(), Calibrate(), *steps)


@register(
    "qdiffusion",
    QDiffusionOptions,
    title="Q-Diffusion",
    paper="Li et al., ICCV 2023, https://arxiv.org/abs/2302.04304",
)
def build(options: QDiffusionOptions, module: nn.Module, request: Request) -> Student:
    """A Q-Diffusion student, rounded to nearest and not calibrated."""
    return build_ptq_student(options, module, request)
