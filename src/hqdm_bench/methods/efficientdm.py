"""EfficientDM (He et al., ICLR 2024, arXiv 2310.03270): QALoRA with per-step activation scales.

Weights: per output channel, asymmetric, base plus low-rank update, re-quantized. Activations: per
tensor, asymmetric, a learned scale and a learned zero-point for every denoising step (TALSQ).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.methods.qat import build_qat_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.quantization import AffineTable

__all__ = ["EfficientDMOptions", "build"]


@dataclass(frozen=True)
class EfficientDMOptions(QatOptions):
    """The common options, and that of the zero-points.

    Attributes:
        zero_points: of the inputs' grids: ``real`` numbers once they are trained (released code and
            text), whose clipped values are on no integer grid, or rounded to an ``integer`` where
            they are used, gradients passing straight through.
    """

    zero_points: Literal["real", "integer"] = "real"

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default) and ``as_paper``."""
        as_paper = cls(
            base="full_precision",
            weight_scale_updates="once",
            scale_aware="gradient",
            loss="eps_mean",
            steps="interpolate",
        )
        return {"as_code": cls(), "as_paper": as_paper}


@register(
    "efficientdm",
    EfficientDMOptions,
    title="EfficientDM",
    paper="He et al., ICLR 2024, https://arxiv.org/abs/2310.03270",
)
def build(options: EfficientDMOptions, module: nn.Module, request: Request) -> Student:
    """An EfficientDM student, not calibrated."""
    table = partial(AffineTable, integer_zero=options.zero_points == "integer")
    return build_qat_student(options, module, request, activation=table)
