"""HQ-DM (arXiv 2512.05746): EfficientDM with a block Hadamard around the activation quantizer.

Three differences from EfficientDM, as coded: inputs are rotated along channels in blocks of 2^k,
quantized and rotated back (k = 5; images and vectors, not the rank-3 inputs of transformers); the
activation grid is symmetric, without its most negative code; hence there is no zero-point table.
"""

from dataclasses import dataclass
from typing import Literal, Self

from hqdm_bench.catalogue import Bits, Recipe
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.methods.qat import build_qat_student
from hqdm_bench.methods.registry import register
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import AffineTable, Rotation, SymmetricTable

__all__ = ["HQDMOptions", "build"]


@dataclass(frozen=True)
class HQDMOptions(QatOptions):
    """The common options and those of the rotation.

    Attributes:
        rotate: ``conv_rank2`` rotates rank-4 and rank-2 inputs (released code), ``all`` rank-3
            inputs too (the paper's text: every linear layer), ``none`` nothing (ablation). A layer
            whose input channels are not a multiple of the block stays unrotated.
        order: k of the Hadamard block 2^k; the released code has 5, the paper's ablation 3 to 6.
        activation: ``symmetric`` (both), or ``affine``, EfficientDM's grid in rotated coordinates,
            which no paper has: it tells the effect of the rotation from that of the symmetric grid.
    """

    rotate: Literal["conv_rank2", "all", "none"] = "conv_rank2"
    order: Literal[3, 4, 5, 6] = 5
    activation: Literal["symmetric", "affine"] = "symmetric"

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default) and ``as_paper``."""
        as_paper = cls(base="float", weight_scale_updates="once", rotate="all")
        return {"as_code": cls(), "as_paper": as_paper}


@register("hqdm", HQDMOptions)
def build(
    options: HQDMOptions, teacher: LatentDiffusion, bits: Bits, recipe: Recipe, seed: int
) -> Student:
    """An HQ-DM student, not calibrated."""
    rotation = None
    if options.rotate != "none":
        rotation = Rotation(options.order, rank3=options.rotate == "all")
    table = SymmetricTable if options.activation == "symmetric" else AffineTable
    return build_qat_student(
        "hqdm", options, teacher, bits, recipe, seed, activation=table, rotation=rotation
    )
