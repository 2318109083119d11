"""The noise-prediction UNet of Rombach et al. (2022), under CompVis' layer names."""

from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.attention import AttentionBlock, SpatialTransformer, zeroed
from hqdm_bench.models.embedder import timestep_embedding
from hqdm_bench.models.resblock import Downsample, ResBlock, Upsample
from hqdm_bench.models.unet_config import GROUPS, UNetConfig

__all__ = ["UNet"]


class Stage(nn.Sequential):
    """Layers in sequence, each given what it takes: the time embedding or the context."""

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:  # type: ignore[override]
        """Map (B, C, h, w), an embedding (B, E) and a context (B, L, D) to (B, C', h', w')."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class UNet(nn.Module):
    """Predicts the noise in a latent.

    Args:
        **params: keys of CompVis' ``unet_config.params``; see :class:`UNetConfig`.

    Raises:
        BenchError: a key is unknown or missing, or a value is not supported.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__()
        config = UNetConfig.from_params(params)
        self.config = config
        width, embedding = config.model_channels, config.embedding_channels
        self.time_embed = nn.Sequential(
            nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.input_blocks, skips = _input_blocks(config)
        self.middle_block = Stage(
            _res_block(config, skips[-1], skips[-1]),
            _attention(config, skips[-1]),
            _res_block(config, skips[-1], skips[-1]),
        )
        self.output_blocks = _output_blocks(config, skips)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, config.widths[0]),
            nn.SiLU(),
            zeroed(nn.Conv2d(config.widths[0], config.out_channels, 3, padding=1)),
        )

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """Predict the noise.

        Args:
            x: noisy latents (B, C, h, w), in the precision of the weights.
            timesteps: (B,), the t of each row, 0 to 999.
            context: tokens (B, L, D) of cross-attention; None for a UNet without it.

        Returns:
            (B, C_out, h, w).

        Raises:
            BenchError: the UNet has cross-attention and no context was given.
        """
        if self.config.use_spatial_transformer and context is None:
            raise BenchError("this UNet has cross-attention; give it a context (B, L, D)")
        sinusoids = timestep_embedding(timesteps, self.config.model_channels)
        embedding = self.time_embed(sinusoids.to(x.dtype))
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            x = stage(x, embedding, context)
            skips.append(x)
        x = self.middle_block(x, embedding, context)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding, context)
        return self.out(x)


def _res_block(
    config: UNetConfig,
    channels: int,
    out_channels: int,
    resample: type[Upsample] | type[Downsample] | None = None,
) -> ResBlock:
    return ResBlock(
        channels,
        config.embedding_channels,
        out_channels,
        config.dropout,
        config.use_scale_shift_norm,
        resample,
    )


def _attention(config: UNetConfig, channels: int) -> nn.Module:
    heads = config.heads(channels)
    if config.context_dim is None:
        return AttentionBlock(channels, heads)
    return SpatialTransformer(
        channels, heads, config.transformer_depth, config.context_dim, config.dropout
    )


def _resampling(
    config: UNetConfig, channels: int, kind: type[Upsample] | type[Downsample]
) -> nn.Module:
    if config.resblock_updown:
        return _res_block(config, channels, channels, kind)
    return kind(channels, config.conv_resample)


def _input_blocks(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """The way down, and the channels each of its stages leaves for the way up."""
    width = config.model_channels
    stages: list[nn.Module] = [Stage(nn.Conv2d(config.in_channels, width, 3, padding=1))]
    channels = [width]
    for level, width in enumerate(config.widths):
        for _ in range(config.num_res_blocks):
            layers: list[nn.Module] = [_res_block(config, channels[-1], width)]
            if 2**level in config.attention_resolutions:
                layers.append(_attention(config, width))
            stages.append(Stage(*layers))
            channels.append(width)
        if level < len(config.widths) - 1:
            stages.append(Stage(_resampling(config, width, Downsample)))
            channels.append(width)
    return nn.ModuleList(stages), channels


def _output_blocks(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    """The way up; every stage takes the output of the mirrored input stage beside its own input."""
    remaining = list(skips)
    channels = remaining[-1]
    stages = []
    for level, width in reversed(list(enumerate(config.widths))):
        for block in range(config.num_res_blocks + 1):
            layers: list[nn.Module] = [_res_block(config, channels + remaining.pop(), width)]
            channels = width
            if 2**level in config.attention_resolutions:
                layers.append(_attention(config, width))
            if level and block == config.num_res_blocks:
                layers.append(_resampling(config, width, Upsample))
            stages.append(Stage(*layers))
    return nn.ModuleList(stages)
