"""SmoothQuant (Xiao et al., ICML 2023, arXiv 2211.10438): input outliers moved to the weight.

Every input channel j is divided by tau_j = max|X_j|^alpha / max|W_j|^(1 - alpha) and the weight of
the channel multiplied by it, before both are quantized over their full ranges. The maxima of the
input are those of all calibration calls, so one tau serves all steps.

The authors quantize language models, where tau folds into the norm before the layer. Here it stays
with the layer, which may follow anything; the division is in floating point. The student has the
low-rank updates of the other methods, zero until they are trained: without training it is
SmoothQuant, with training it starts from it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import QatOptions
from hqdm_bench.methods.qat import InputTransform, build_qat_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.quantization import AffineTable, minmax_grid

__all__ = ["SmoothQuantOptions", "build"]


class RangeTable(AffineTable):
    """An asymmetric grid with integer zero-points that covers the range of what it is shown."""

    def __init__(self, bits: int, steps: int) -> None:
        super().__init__(bits, steps, integer_zero=True)

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Minimum to maximum, zero included."""
        grid = minmax_grid(x, self.bits, per_channel=False)
        self.initialise(grid.scale, grid.zero, step)


@dataclass(frozen=True)
class SmoothQuantOptions(QatOptions):
    """The common options, and those of the scales and ranges.

    Attributes:
        alpha: share of the difficulty that moves to the weight, in percent: 50 (the paper's text
            for most models) by default, more where inputs have stronger outliers.
        ranges: of the inputs' grids: ``max`` covers what was seen (as the authors do), ``mse``
            searches.
    """

    alpha: Literal[50, 25, 60, 75, 85] = 50
    ranges: Literal["max", "mse"] = "max"


@register(
    "smoothquant",
    SmoothQuantOptions,
    title="SmoothQuant",
    paper="Xiao et al., ICML 2023, https://arxiv.org/abs/2211.10438",
)
def build(options: SmoothQuantOptions, module: nn.Module, request: Request) -> Student:
    """A SmoothQuant student, not calibrated; a single batch of mixed steps cannot calibrate it."""
    table = RangeTable if options.ranges == "max" else partial(AffineTable, integer_zero=True)
    transform = InputTransform(smoothing=options.alpha / 100)
    return build_qat_student(options, module, request, table, transform)
