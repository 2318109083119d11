"""HQ-DM (arXiv 2512.05746): EfficientDM with a block Hadamard around the activation quantizer.

Three differences from EfficientDM, as coded: inputs are rotated along channels in blocks of 2^k,
quantized and rotated back (k = 5; images and vectors, not the rank-3 inputs of transformers); the
activation grid is symmetric, without its most negative code; hence there is no zero-point table.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.methods.qat import InputTransform, MakeActivation, build_qat_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.quantization import AffineTable, Rotation, SymmetricTable

__all__ = ["GridOptions", "HQDMOptions", "build"]


@dataclass(frozen=True)
class GridOptions(QatOptions):
    """The common options, and those of a Hadamard block and of the grid behind it.

    Attributes:
        order: k of the Hadamard block 2^k; the released code has 5, the paper's ablation 3 to 6.
        indivisible: an axis that the block does not divide stays as it is (``identity``: released
            code and text), or is rotated in the largest ``smaller_block`` 2^j that divides it.
        signs: plain ``sylvester`` matrices (both), or ``random`` signs on the channels before them
            (QuaRot), which no positive mean can line up with.
        levels: ``drop_most_negative`` leaves the code -2^(b-1) unused (released code),
            ``full_range`` uses it (text); symmetric grids only.
        activation: ``symmetric`` (both), or ``asymmetric``, EfficientDM's grid in rotated
            coordinates, which no paper has: it tells the effect of the rotation from that of the
            symmetric grid.
    """

    order: Literal[2, 3, 4, 5, 6, 7] = 5
    indivisible: Literal["identity", "smaller_block"] = "identity"
    signs: Literal["sylvester", "random"] = "sylvester"
    levels: Literal["drop_most_negative", "full_range"] = "drop_most_negative"
    activation: Literal["symmetric", "asymmetric"] = "symmetric"

    def table(self) -> MakeActivation:
        """Makes the input quantizers."""
        if self.activation == "asymmetric":
            return AffineTable
        return partial(SymmetricTable, full_range=self.levels == "full_range")


@dataclass(frozen=True)
class HQDMOptions(GridOptions):
    """The options of the grid, and what is rotated.

    Attributes:
        axis: of an image that is rotated: its ``channel``s (released code) or its ``width`` (the
            paper's text). Inputs of linear layers are rotated along their channels.
        scope: ``official`` rotates images and vectors but not rank-3 inputs (released code),
            ``every_linear`` those too (text), ``none`` nothing (ablation).
    """

    axis: Literal["channel", "width"] = "channel"
    scope: Literal["official", "every_linear", "none"] = "official"

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default) and ``as_paper``.

        The text does not say which layers it exempts; both presets take the released policy.
        """
        as_paper = cls(
            base="full_precision",
            weight_scales="per_step",
            weight_scale_updates="once",
            loss="eps_mean",
            axis="width",
            scope="every_linear",
            levels="full_range",
        )
        return {"as_code": cls(), "as_paper": as_paper}


@register(
    "hqdm",
    HQDMOptions,
    title="HQ-DM",
    paper="HQ-DM, https://arxiv.org/abs/2512.05746",
)
def build(options: HQDMOptions, module: nn.Module, request: Request) -> Student:
    """An HQ-DM student, not calibrated.

    Raises:
        BenchError: random signs without a rotation along the channels.
    """
    rotation = None
    if options.scope != "none":
        rotation = Rotation(
            options.order, options.scope, options.axis, options.indivisible == "smaller_block"
        )
    transform = InputTransform(rotation, random_signs=options.signs == "random")
    return build_qat_student(options, module, request, options.table(), transform)
