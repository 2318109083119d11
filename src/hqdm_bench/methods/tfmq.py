"""TFMQ-DM (Huang et al., CVPR 2024): temporal features reconstructed apart, finite set calibration.

The embedding of the timestep and its projections in all residual blocks learn their rounding
together, against the embeddings of the finitely many timesteps (`RoundTemporal`); the other blocks
then learn theirs as in BRECQ. Every timestep has ranges of its own, which nothing learns.

Ranges are moving averages over batches of 16, widened to zero; the mean-error search that the
released code makes before is overwritten there and left out here. As for every method here, the
inputs they come from are exact but for the weights; in the released code the layers before quantize
theirs, too.

Timesteps are the true ones: the released code labels the 500 steps that the sampler takes for "400"
as if they were 400, so that labels and sets of ranges drift apart on churches.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import text_option
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stage_temporal import RoundTemporal
from hqdm_bench.methods.stages import Calibrate, RoundingFit, RoundWeights, Stage
from hqdm_bench.quantization import (
    POLICY_SAYS,
    TEMPORAL,
    LearnedStep,
    check_policy,
    find_temporal_block,
)

__all__ = ["TfmqOptions", "build"]

# Layers of the temporal block, which keep the rounding they learned there.
TEMPORAL_LAYERS = tuple(
    pattern for name in sorted(TEMPORAL) for pattern in (f"{name}.*", f"*.{name}.*", f"*.{name}")
)
ALL = 1000  # timesteps


@dataclass(frozen=True)
class TfmqOptions(PtqOptions):
    """The common options at TFMQ-DM's values, and those of the finite set.

    The defaults are those of the script for ImageNet on one GPU (20 timesteps). The scripts for
    bedrooms and churches round at 20 of 200 and 16 of 400 (really 500) timesteps.

    Attributes:
        finite_set: where every timestep has a range of its own: in ``all`` layers (released code),
            or in the ``temporal`` block, the others sharing one (the paper's text).
        embedding_timesteps: that the temporal block is fitted at: those ``chosen`` for the other
            blocks (released code), or ``all`` (the paper's text).
        rounding_batch: samples an update: 8 for ImageNet, 32 for the others.
        rounding_timesteps: that rounding is learned at, all if there are fewer.
    """

    policy: str = text_option("tfmq", check_policy, POLICY_SAYS)
    activation_range: Literal["mse", "minmax", "ema", "ema_zero"] = "ema_zero"
    finite_set: Literal["all", "temporal"] = "all"
    embedding_timesteps: Literal["chosen", "all"] = "chosen"
    rounding_batch: Literal[8, 32] = 8
    rounding_timesteps: Literal[20, 16] = 20

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """The released scripts, and the text."""
        return {
            "as_code": cls(),
            "as_code_bedrooms": cls(rounding_batch=32),
            "as_code_churches": cls(rounding_batch=32, rounding_timesteps=16),
            "as_paper": cls(finite_set="temporal", embedding_timesteps="all"),
        }

    def stages(self) -> tuple[Stage, ...]:
        """Rounding of the temporal block, then of all others, with exact inputs; ranges."""
        fit, timesteps = RoundingFit(batch=self.rounding_batch), self.rounding_timesteps
        temporal = RoundTemporal(fit, timesteps)
        if self.embedding_timesteps == "all":
            temporal = replace(temporal, timesteps=ALL)
        return temporal, RoundWeights(fit, timesteps, TEMPORAL_LAYERS), Calibrate()


@register(
    "tfmq",
    TfmqOptions,
    title="TFMQ-DM",
    paper="Huang et al., CVPR 2024, https://arxiv.org/abs/2311.16503",
)
def build(options: TfmqOptions, module: nn.Module, request: Request) -> Student:
    """A TFMQ-DM student, rounded to nearest and not calibrated."""
    student = build_ptq_student(options, module, request)
    if options.finite_set == "temporal":
        _share_ranges(student)
    return student


def _share_ranges(student: Student) -> None:
    """One range for all timesteps outside the temporal block."""
    block = find_temporal_block(student.network)
    for name, layer in student.low_bit_layers().items():
        usual = layer.activation
        if isinstance(usual, LearnedStep) and (block is None or not block.holds(name)):
            shared = LearnedStep(usual.bits, symmetric=usual.zero is None)
            layer.activation = shared.to(usual.scale).requires_grad_(False)
