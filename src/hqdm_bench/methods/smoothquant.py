"""SmoothQuant (Xiao et al., ICML 2023, arXiv 2211.10438): input outliers moved to the weight.

Every input channel j is divided by tau_j = max|X_j|^alpha / max|W_j|^(1 - alpha) and the weight of
the channel multiplied by it, before both are quantized over their full ranges. The maxima of the
input are those of all calibration calls, so one tau serves all steps.

The authors quantize language models, where tau folds into the norm before the layer. Here it stays
with the layer, which may follow anything; the division is in floating point.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stage_scaling import SearchThresholds
from hqdm_bench.methods.stages import Calibrate, Stage
from hqdm_bench.quantization import ChannelScaling

__all__ = ["SmoothQuantOptions", "build"]


@dataclass(frozen=True)
class SmoothQuantOptions(PtqOptions):
    """The common options, with full ranges as the authors have them, and those of the scales.

    Attributes:
        alpha: share of the difficulty that moves to the weight, in percent: 50 (the paper's text
            for most models) by default, more where inputs have stronger outliers.
        scales: SmoothQuant's ``formula``, or those above a ``threshold`` scaled down to it,
            searched for the least error of the layer (`search_threshold`).
        shift: ``channel`` subtracts the middle of a channel's range before it is scaled, exactly
            undone at the output; ``none`` is SmoothQuant.

    Preset ``outlier_suppression_plus`` has the shift and the threshold of that method (Wei et al.,
    EMNLP 2023, arXiv 2304.09145).
    """

    weight_init: Literal["mse", "max"] = "max"
    activation_range: Literal["mse", "minmax", "ema", "ema_zero"] = "minmax"
    alpha: Literal[50, 25, 60, 75, 85] = 50
    scales: Literal["formula", "threshold"] = "formula"
    shift: Literal["none", "channel"] = "none"

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default), and ``outlier_suppression_plus``."""
        return {
            "as_code": cls(),
            "outlier_suppression_plus": cls(scales="threshold", shift="channel"),
        }

    def stages(self) -> tuple[Stage, ...]:
        """Ranges, which set the scales of the formula; the others are searched before."""
        searched = (SearchThresholds(),) if self.scales == "threshold" else ()
        return (*searched, Calibrate())


@register(
    "smoothquant",
    SmoothQuantOptions,
    title="SmoothQuant",
    paper="Xiao et al., ICML 2023, https://arxiv.org/abs/2211.10438",
)
def build(options: SmoothQuantOptions, module: nn.Module, request: Request) -> Student:
    """A SmoothQuant student, not calibrated; a single batch of mixed steps cannot calibrate it.

    Raises:
        BenchError: a share for scales that no formula gives.
    """
    if options.scales == "threshold" and options.alpha != SmoothQuantOptions.alpha:
        raise BenchError(
            f"alpha {options.alpha} is of the formula; with scales 'threshold' leave it out"
        )
    scaling = partial(
        ChannelScaling,
        alpha=options.alpha / 100 if options.scales == "formula" else None,
        rule=options.weight_init,
        per_channel=options.weight_grids == "channel",
        shifted=options.shift == "channel",
    )
    return build_ptq_student(options, module, request, scaling=scaling)
