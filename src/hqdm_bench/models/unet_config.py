"""What a UNet is made of: the keys of CompVis' ``unet_config.params``, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.options import checked_options

__all__ = ["GROUPS", "UNetConfig"]

GROUPS = 32  # groups of every group norm

# Keys that change neither the weights nor the output.
WITHOUT_EFFECT = frozenset({"image_size", "use_checkpoint", "legacy"})

# Switches of the reference implementation that no supported model turns on.
FIXED: Mapping[str, Any] = {
    "dims": 2,
    "num_classes": None,
    "n_embed": None,
    "num_heads_upsample": -1,
    "use_fp16": False,
    "use_new_attention_order": False,
}


@dataclass(frozen=True)
class UNetConfig:
    """Structure of a UNet.

    Attributes:
        in_channels: channels of the latent.
        out_channels: channels of the predicted noise.
        model_channels: width of the first level.
        num_res_blocks: ResBlocks per level on the way down (one more on the way up).
        attention_resolutions: downsampling factors at which attention follows a ResBlock.
        channel_mult: width of each level over ``model_channels``.
        dropout: inside ResBlocks and transformer blocks.
        conv_resample: resampling layers have a convolution.
        num_heads: attention heads of every level; -1 leaves it to ``num_head_channels``.
        num_head_channels: channels per head; -1 leaves it to ``num_heads``.
        use_scale_shift_norm: the time embedding scales and shifts the second norm of a ResBlock.
        resblock_updown: levels are joined by ResBlocks that resample.
        use_spatial_transformer: transformer blocks instead of plain attention.
        transformer_depth: transformer blocks per attention layer.
        context_dim: width of the tokens of cross-attention.
    """

    in_channels: int
    out_channels: int
    model_channels: int
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    channel_mult: tuple[int, ...] = (1, 2, 4, 8)
    dropout: float = 0.0
    conv_resample: bool = True
    num_heads: int = -1
    num_head_channels: int = -1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    use_spatial_transformer: bool = False
    transformer_depth: int = 1
    context_dim: int | None = None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Read ``unet_config.params``.

        Raises:
            BenchError: an unknown key, a missing one, or a value no supported model has.
        """
        return cls(**checked_options("unet", params, cls, FIXED, WITHOUT_EFFECT))

    def __post_init__(self) -> None:
        if (self.num_heads == -1) == (self.num_head_channels == -1):
            raise BenchError("unet: give exactly one of num_heads and num_head_channels")
        if self.use_spatial_transformer != (self.context_dim is not None):
            raise BenchError("unet: use_spatial_transformer and context_dim come together")
        for width in self.widths:
            if width % GROUPS:
                raise BenchError(
                    f"unet: a level has {width} channels; group norm needs a multiple of {GROUPS}"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.model_channels * factor for factor in self.channel_mult)

    @property
    def embedding_channels(self) -> int:
        """Width of the time embedding."""
        return 4 * self.model_channels

    def heads(self, channels: int) -> int:
        """Attention heads of a layer.

        Raises:
            BenchError: the channels do not divide into heads.
        """
        parts = self.num_heads if self.num_head_channels == -1 else self.num_head_channels
        if channels % parts:
            raise BenchError(f"unet: {channels} channels do not divide by {parts} for attention")
        return self.num_heads if self.num_head_channels == -1 else channels // parts
