"""HQ-DM Plus: the method that follows from measuring HQ-DM's differences. It is in no paper.

Three observations (docs/differences.md): inputs behind SiLU are one-sided, so a symmetric grid
wastes half of its codes on them; the Hadamard matrix adds up a mean that neighbouring channels
share in the first entry of each block, and so makes an outlier where there was none; the input with
the strongest natural outliers, the output of the gated feed-forward, is one that the released HQ-DM
does not rotate.

Hence: the mean of every channel at every step is subtracted before the rotation and added after the
quantizer; random signs keep what neighbours still share from adding up; the grid is asymmetric,
with integer zero-points; every layer may be rotated, and calibration decides layer by layer, by the
error that its grid makes with and without. Weights start from the mean-error search that the inputs
have anyway.

Nothing of this stands in the way of integers. A mean is a constant of the layer and the step: its
product with the weight is a bias, worth one pixel's multiplications a step. An integer zero-point
is another one. The rotation folds into the integer weight as HQ-DM's does.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.methods.qat import InputTransform, MakeActivation, build_qat_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.quantization import AffineTable, Rotation, SymmetricTable

__all__ = ["HQDMPlusOptions", "build"]


@dataclass(frozen=True)
class HQDMPlusOptions(QatOptions):
    """The common options, and the parts of the method, each of which can be taken out.

    Attributes:
        weight_init: as for all, but ``mse`` is the default.
        order: k of the Hadamard block 2^k; a width that it does not divide takes the largest
            smaller block that does.
        centre: subtract the mean of each channel at each step (``per_step``), or ``none``.
        signs: ``random`` ones on the channels before the rotation, or plain ``sylvester``.
        activation: ``asymmetric`` with integer zero-points, or ``symmetric`` over the full range.
        scope: rotate where the error of the grid on the calibration inputs is smaller for it
            (``measured``), or ``every_linear`` layer and convolution.
    """

    weight_init: Literal["max", "mse"] = "mse"
    order: Literal[2, 3, 4, 5, 6, 7] = 5
    centre: Literal["per_step", "none"] = "per_step"
    signs: Literal["random", "sylvester"] = "random"
    activation: Literal["asymmetric", "symmetric"] = "asymmetric"
    scope: Literal["measured", "every_linear"] = "measured"

    def table(self) -> MakeActivation:
        """Makes the input quantizers."""
        if self.activation == "asymmetric":
            return partial(AffineTable, integer_zero=True)
        return partial(SymmetricTable, full_range=True)


@register(
    "hqdm_plus",
    HQDMPlusOptions,
    title="HQ-DM Plus (ours)",
    paper="this project, docs/differences.md",
)
def build(options: HQDMPlusOptions, module: nn.Module, request: Request) -> Student:
    """An HQ-DM Plus student, not calibrated; `calibrate` on a single batch cannot set it up."""
    transform = InputTransform(
        Rotation(options.order, "every_linear", smaller_block=True),
        random_signs=options.signs == "random",
        centre=options.centre == "per_step",
        measured_scope=options.scope == "measured",
    )
    return build_qat_student(options, module, request, options.table(), transform)
