"""LSQ (Esser et al., ICLR 2020): weights and step sizes trained together, on teacher trajectories.

Quantization-aware training in full: the float weights of the low-bit layers learn through their
quantizer, next to a step size for every output channel and one for the input (at every timestep).
Gradients of step sizes are multiplied by 1 / sqrt(N Q). The authors train classifiers on labelled
data and released no code; here the student learns the teacher's predictions like the other trained
methods. Step sizes start from a search instead of 2 <|v|> / sqrt(Q). The optimiser is the others'
Adam, for which a constant factor on a gradient changes nothing but the size of eps next to it.

Calibrated zero-points stay integers, so a trained student multiplies integers. What is quantized
within the attention (option ``attention``) keeps its calibrated grids.
"""

from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stages import Calibrate, Commit, Distill, Stage
from hqdm_bench.quantization import (
    ActivationQuantizer,
    LearnedStep,
    QuantizedLayer,
    StaticWeight,
    TrainedWeight,
    float_weight,
)

__all__ = ["LsqOptions", "build"]


@dataclass(frozen=True)
class LsqOptions(PtqOptions):
    """The options of grids and ranges, and those of the training.

    The weight grids are per output ``channel`` and asymmetric, as for the other methods;
    ``as_paper`` has LSQ's: one symmetric grid for a weight, and for an input at all timesteps.

    Attributes:
        weight_grid: ``asymmetric``, with an integer zero-point that is fixed, or ``symmetric``,
            -2^(b-1) to 2^(b-1) - 1.
        step_gradient: of the step sizes: ``lsq`` with the factor 1 / sqrt(N Q), or ``plain``.
        weight_rate: rate of the weights, in percent of what the recipe has for low-rank factors;
            suite ``settings`` compares them.
        loss: see `QatOptions`.
    """

    weight_grid: Literal["asymmetric", "symmetric"] = "asymmetric"
    step_gradient: Literal["lsq", "plain"] = "lsq"
    weight_rate: Literal[10, 2, 30, 100] = 10
    loss: Literal["guided_sum", "eps_mean"] = "guided_sum"

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default), which is ours for want of a released one, and ``as_paper``."""
        as_paper = cls(
            weight_grids="tensor",
            weight_grid="symmetric",
            activation_grid="symmetric",
            activation_steps="shared",
        )
        return {"as_code": cls(), "as_paper": as_paper}

    def stages(self) -> tuple[Stage, ...]:
        """Ranges from the trajectories, distillation along them, codes."""
        return Calibrate(), Distill(), Commit()

    @property
    def full_weight_share(self) -> float:
        """That of option ``weight_rate``."""
        return self.weight_rate / 100

    @property
    def post_training(self) -> bool:
        """No: it is trained along the trajectories, on their timesteps."""
        return False


@register(
    "lsq",
    LsqOptions,
    title="LSQ",
    paper="Esser et al., ICLR 2020, https://arxiv.org/abs/1902.08153",
)
def build(options: LsqOptions, module: nn.Module, request: Request) -> Student:
    """An LSQ student, not calibrated.

    Raises:
        BenchError: channels with different bits on a symmetric grid, which has none to give them.
    """
    if options.mixed != "none" and options.weight_grid == "symmetric":
        raise BenchError(
            "bits that differ from channel to channel go with weight_grid 'asymmetric'"
        )

    def activation(bits: int) -> ActivationQuantizer:
        return LearnedStep(
            bits,
            request.steps if options.activation_steps == "per_step" else 1,
            symmetric=options.activation_grid == "symmetric",
            gradient=options.step_gradient,
        )

    student = build_ptq_student(options, module, request, activation)
    for name, layer in student.low_bit_layers().items():
        layer.weight = _trained(options, layer, float_weight(student.network, module, name))
        layer.activation.requires_grad_(True)
    return student


def _trained(options: LsqOptions, layer: QuantizedLayer, weight: Tensor) -> TrainedWeight:
    """A float weight behind the layer's grid, or a symmetric one."""
    assert isinstance(layer.weight, StaticWeight)
    per_channel = options.weight_grids == "channel"
    if options.weight_grid == "asymmetric":
        return TrainedWeight.from_grid(
            weight, layer.weight, per_channel=per_channel, gradient=options.step_gradient
        )
    return TrainedWeight.from_float(
        weight.detach(),
        layer.weight.bits,
        options.weight_init,
        per_channel=per_channel,
        symmetric=True,
        gradient=options.step_gradient,
    ).to(weight)
