"""QuEST (Wang et al., ICCV 2025): post-training quantization, then selective fine-tuning.

Weights are rounded as Q-Diffusion learns it. Then float weights are trained behind their fixed
rounding sides in two stages, against the outputs of the full-precision network: the projections of
the time embedding with the step sizes of their inputs, and the layers of the attention with all
other step sizes.

At 4 bits the released code gives every input channel a step size. That is finer than what the other
methods have, and no integer arithmetic can have it (`ChannelStep`). The factors of the products
within the attention have one step size here; in the released code they have one a channel, too.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Self

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import text_option
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request
from hqdm_bench.methods.stage_finetune import (
    EMBEDDING,
    attention_tuning,
    temporal_tuning,
)
from hqdm_bench.methods.stages import Calibrate, RoundWeights, Stage
from hqdm_bench.quantization import (
    POLICY_SAYS,
    ChannelStep,
    ExactInput,
    LearnedStep,
    QuantizedLayer,
    check_policy,
)

__all__ = ["QuestOptions", "build"]

CHANNEL_BITS = 4


@dataclass(frozen=True)
class QuestOptions(PtqOptions):
    """The options of the post-training methods, at the settings of the released ImageNet script.

    On churches the script has asymmetric grids and the mean-error search. Its weights are those of
    Q-Diffusion's stage, which the authors recommend over their own. Released ranges are of the
    first 64 inputs of a timestep, here of all; the first and the last layer have 8 bits here and,
    with symmetric grids, about 9 there.

    Attributes:
        activation_range: ``ema_above_a4``: extremes, averaged over batches above 4 bits, as the
            authors advise; or one of the others' for all bits.
        activation_channels: step sizes of an input are one a ``tensor``, one a ``channel``, or one
            a channel at 4 bits and fewer and one a tensor above (``channel_at_a4``; released code
            at exactly 4 bits).
        embedding_steps: rows of the tables of the time embedding's layers: one ``per_step``
            (released code), or one that all timesteps share (text).
        output_errors: the error of the network's output counts once for ``every_layer`` of a part
            and is all that counts for the attention (released code), or ``once`` beside the errors
            of the layers in both parts (text).
        temporal_epochs: of the first stage: 300 (released for ImageNet) or 200 (for LSUN).
    """

    policy: str = text_option("quest", check_policy, POLICY_SAYS)
    activation_grid: Literal["asymmetric", "symmetric"] = "symmetric"
    activation_range: Literal["mse", "minmax", "ema", "ema_zero", "ema_above_a4"] = "ema_above_a4"
    attention: Literal["full_precision", "quantized"] = "quantized"
    activation_channels: Literal["channel_at_a4", "channel", "tensor"] = "channel_at_a4"
    embedding_steps: Literal["per_step", "shared"] = "per_step"
    output_errors: Literal["every_layer", "once"] = "every_layer"
    temporal_epochs: Literal[300, 200] = 300

    @classmethod
    def presets(cls) -> dict[str, Self]:
        """``as_code`` (default) and ``as_paper``."""
        return {"as_code": cls(), "as_paper": cls(embedding_steps="shared", output_errors="once")}

    @property
    def table_timesteps(self) -> int:
        """At most 20 rows, each for the sampler's steps around it, so that all are fine-tuned."""
        return 20

    def stages(self) -> tuple[Stage, ...]:
        """Rounding with exact inputs, ranges, the two stages of fine-tuning."""
        every_layer = self.output_errors == "every_layer"
        return (
            RoundWeights(),
            Calibrate(),
            temporal_tuning(self.temporal_epochs, repeat_output=every_layer),
            attention_tuning(local=not every_layer, repeat_output=every_layer),
        )


@register(
    "quest",
    QuestOptions,
    title="QuEST",
    paper="Wang et al., ICCV 2025, https://arxiv.org/abs/2402.03666",
)
def build(options: QuestOptions, module: nn.Module, request: Request) -> Student:
    """A QuEST student, weights rounded to nearest, not calibrated, nothing fine-tuned."""
    student = build_ptq_student(options, module, request)
    for name, layer in student.low_bit_layers().items():
        if isinstance(layer.activation, ExactInput):
            continue
        embeds = any(fnmatchcase(name, pattern) for pattern in EMBEDDING)
        shared = options.activation_steps == "shared" or (
            embeds and options.embedding_steps == "shared"
        )
        layer.activation = _activation(options, layer, request, 1 if shared else request.steps)
        layer.activation.to(layer.weight.zero).requires_grad_(False)
    return student


def _activation(
    options: QuestOptions, layer: QuantizedLayer, request: Request, rows: int
) -> LearnedStep:
    bits, symmetric = layer.activation.bits, options.activation_grid == "symmetric"
    # What the student has decides, as released: the first and last layer's 8 bits go along.
    by_channel = options.activation_channels == "channel" or (
        options.activation_channels == "channel_at_a4" and request.bits.activation <= CHANNEL_BITS
    )
    if not by_channel:
        return LearnedStep(bits, rows, symmetric=symmetric)
    return ChannelStep(bits, rows, layer.in_channels, linear=layer.linear, symmetric=symmetric)
