"""EfficientDM (He et al., ICLR 2024, arXiv 2310.03270): QALoRA with per-step activation scales.

Weights: per output channel, asymmetric, base plus low-rank update, re-quantized. Activations: per
tensor, asymmetric, a learned scale and a learned zero-point for every denoising step (TALSQ).
"""

from dataclasses import dataclass
from typing import Self

from hqdm_bench.catalogue import Bits, Recipe
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.methods.qat import build_qat_student
from hqdm_bench.methods.registry import register
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import AffineTable

__all__ = ["EfficientDMOptions", "build"]


@dataclass(frozen=True)
class EfficientDMOptions(QatOptions):
    """The common options; ``as_paper`` updates the float weights W0 and trains one scale."""

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default) and ``as_paper``."""
        return {"as_code": cls(), "as_paper": cls(base="float", weight_scale_updates="once")}


@register("efficientdm", EfficientDMOptions)
def build(
    options: EfficientDMOptions, teacher: LatentDiffusion, bits: Bits, recipe: Recipe, seed: int
) -> Student:
    """An EfficientDM student, not calibrated."""
    return build_qat_student(
        "efficientdm", options, teacher, bits, recipe, seed, activation=AffineTable
    )
