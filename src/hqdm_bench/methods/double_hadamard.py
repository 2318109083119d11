"""Double Hadamard: Y = Q(X H) Q(H^T W), the transform that HQ-DM sets itself apart from.

QuaRot (Ashkboos et al., NeurIPS 2024) and Xi et al. (NeurIPS 2023) rotate a weight before it is
quantized; HQ-DM quantizes it as it is and rotates the quantized input back. Inputs see the same
error either way, so this method tells what the place of the weight's quantizer is worth. Along the
channels the rotation acts on each tap of a kernel alone, hence convolutions of any stride and
padding work, which HQ-DM's text says they cannot.

The frozen codes, their step sizes and the low-rank update belong to the rotated weight.
"""

from dataclasses import dataclass

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.hqdm import GridOptions
from hqdm_bench.methods.qat import InputTransform, build_qat_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.quantization import Rotation

__all__ = ["DoubleHadamardOptions", "build"]


@dataclass(frozen=True)
class DoubleHadamardOptions(GridOptions):
    """Those of HQ-DM's grid and block.

    Every layer is rotated, whatever the rank of its input: a weight is rotated before there is an
    input. HQ-DM with ``scope: every_linear`` differs in nothing else.
    """


@register(
    "double_hadamard",
    DoubleHadamardOptions,
    title="Double Hadamard",
    paper="QuaRot, Ashkboos et al., NeurIPS 2024, https://arxiv.org/abs/2404.00456",
)
def build(options: DoubleHadamardOptions, module: nn.Module, request: Request) -> Student:
    """A Double-Hadamard student, not calibrated."""
    rotation = Rotation(
        options.order, "every_linear", smaller_block=options.indivisible == "smaller_block"
    )
    transform = InputTransform(rotation, random_signs=options.signs == "random", rotate_weight=True)
    return build_qat_student(options, module, request, options.table(), transform)
