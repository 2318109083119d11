"""Encoder and decoder of the first stage (Esser et al., 2021), under CompVis' layer names."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.options import checked_options

__all__ = ["AutoencoderConfig", "Decoder", "Encoder"]

GROUPS = 32
NORM_EPS = 1e-6
FIXED: Mapping[str, Any] = {
    "attn_type": "vanilla",
    "use_linear_attn": False,
    "resamp_with_conv": True,
    "give_pre_end": False,
    "tanh_out": False,
}


@dataclass(frozen=True)
class AutoencoderConfig:
    """Structure of encoder and decoder: the keys of CompVis' ``ddconfig``.

    Attributes:
        double_z: the encoder gives mean and log variance (KL) instead of one latent.
        z_channels: channels of the latent before the 1x1 convolution.
        resolution: height and width of the images.
        in_channels: of the images.
        out_ch: channels of the reconstruction.
        ch: width of the first level.
        ch_mult: width of each level over ``ch``; every level but one halves the resolution.
        num_res_blocks: per level on the way down (one more on the way up).
        attn_resolutions: heights at which attention follows a block.
        dropout: inside the blocks.
    """

    z_channels: int
    resolution: int
    in_channels: int
    out_ch: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...] = ()
    double_z: bool = False
    dropout: float = 0.0

    @classmethod
    def from_ddconfig(cls, ddconfig: Mapping[str, Any]) -> Self:
        """Read a ``ddconfig``.

        Raises:
            BenchError: an unknown key, a missing one, or a value no supported model has.
        """
        return cls(**checked_options("ddconfig", ddconfig, cls, FIXED))

    def __post_init__(self) -> None:
        for width in self.widths:
            if width % GROUPS:
                raise BenchError(
                    f"ddconfig: a level has {width} channels; group norm needs a multiple "
                    f"of {GROUPS}"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.ch * factor for factor in self.ch_mult)

    @property
    def latent_resolution(self) -> int:
        """Height and width of the latent."""
        return self.resolution >> (len(self.ch_mult) - 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=NORM_EPS)


class Block(nn.Module):
    """Two normalised 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C_out, h, w)."""
        hidden = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(functional.silu(self.norm2(hidden))))
        return self.nin_shortcut(x) + hidden


class PixelAttention(nn.Module):
    """One-head self-attention over pixels, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        hidden = self.norm(x)
        query, key, value = (layer(hidden).flatten(2) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(query.transpose(1, 2) @ key * x.shape[1] ** -0.5, dim=-1)
        return x + self.proj_out((value @ weights.transpose(1, 2)).reshape(x.shape))


class HalfSize(nn.Module):
    """Strided 3x3 convolution, padded on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h/2, w/2)."""
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class DoubleSize(nn.Module):
    """Nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2h, 2w)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Blocks of one resolution, each followed by attention where there is any.

    Args:
        widths: channels before the first block and after every block.
        attention: every block is followed by attention.
        dropout: inside the blocks.
    """

    def __init__(self, widths: list[int], attention: bool, dropout: float) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            Block(before, after, dropout) for before, after in pairwise(widths)
        )
        self.attn = nn.ModuleList(PixelAttention(width) for width in widths[1:] if attention)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C', h, w)."""
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class DownLevel(Level):
    """A level of the encoder; every one but the last ends at half the size."""

    def __init__(self, widths: list[int], attention: bool, dropout: float, last: bool) -> None:
        super().__init__(widths, attention, dropout)
        self.downsample = nn.Identity() if last else HalfSize(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C', h/2, w/2)."""
        return self.downsample(super().forward(x))


class UpLevel(Level):
    """A level of the decoder; every one but the last ends at twice the size."""

    def __init__(self, widths: list[int], attention: bool, dropout: float, last: bool) -> None:
        super().__init__(widths, attention, dropout)
        self.upsample = nn.Identity() if last else DoubleSize(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C', 2h, 2w)."""
        return self.upsample(super().forward(x))


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = Block(channels, channels, dropout)
        self.attn_1 = PixelAttention(channels)
        self.block_2 = Block(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Images (B, 3, H, W) to features (B, z or 2z, h, w)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        levels, before = [], config.ch
        for index, width in enumerate(config.widths):
            widths = [before] + [width] * config.num_res_blocks
            attention = config.resolution >> index in config.attn_resolutions
            last = index == len(config.widths) - 1
            levels.append(DownLevel(widths, attention, config.dropout, last))
            before = width
        self.down = nn.ModuleList(levels)
        self.mid = Middle(before, config.dropout)
        self.norm_out = _norm(before)
        channels = 2 * config.z_channels if config.double_z else config.z_channels
        self.conv_out = nn.Conv2d(before, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, z or 2z, h, w)."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(functional.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Features (B, z, h, w) to images (B, out_ch, H, W)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        before = config.widths[-1]
        self.conv_in = nn.Conv2d(config.z_channels, before, 3, padding=1)
        self.mid = Middle(before, config.dropout)
        levels: list[nn.Module] = []
        for index, width in reversed(list(enumerate(config.widths))):
            widths = [before] + [width] * (config.num_res_blocks + 1)
            attention = config.resolution >> index in config.attn_resolutions
            level = UpLevel(widths, attention, config.dropout, last=index == 0)
            levels.insert(0, level)  # index 0 is the full resolution, which runs last
            before = width
        self.up = nn.ModuleList(levels)
        self.norm_out = _norm(before)
        self.conv_out = nn.Conv2d(before, config.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, z, h, w) to (B, out_ch, H, W)."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(functional.silu(self.norm_out(x)))
