"""Residual blocks and resampling layers of the UNet."""

from torch import Tensor, nn
from torch.nn import functional

from hqdm_bench.models.attention import zeroed
from hqdm_bench.models.unet_config import GROUPS

__all__ = ["Downsample", "ResBlock", "Upsample"]


class Upsample(nn.Module):
    """Twice the height and width by nearest neighbour, then a 3x3 convolution if wanted."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if use_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2h, 2w)."""
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """Half the height and width by a strided 3x3 convolution or by averaging."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.op: nn.Module = (
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) if use_conv else nn.AvgPool2d(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h/2, w/2)."""
        return self.op(x)


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions around the time embedding, with a skip connection.

    Args:
        channels: of the input.
        embedding_channels: width of the time embedding.
        out_channels: of the output.
        dropout: before the second convolution.
        scale_shift: the embedding scales and shifts the second norm instead of being added.
        resample: layer applied to both branches before the first convolution.
    """

    def __init__(
        self,
        channels: int,
        embedding_channels: int,
        out_channels: int,
        dropout: float,
        scale_shift: bool,
        resample: type[Upsample] | type[Downsample] | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels),
            nn.SiLU(),
            nn.Conv2d(channels, out_channels, 3, padding=1),
        )
        self.resample = nn.Identity() if resample is None else resample(channels, use_conv=False)
        self.emb_layers = nn.Sequential(
            nn.SiLU(),
            nn.Linear(embedding_channels, 2 * out_channels if scale_shift else out_channels),
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map (B, C, h, w) and an embedding (B, E) to (B, C_out, h', w')."""
        norm, activation, convolution = self.in_layers
        hidden = convolution(self.resample(activation(norm(x))))
        shift = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            norm, *rest = self.out_layers
            scale, shift = shift.chunk(2, dim=1)
            hidden = norm(hidden) * (1 + scale) + shift
            for layer in rest:
                hidden = layer(hidden)
        else:
            hidden = self.out_layers(hidden + shift)
        return self.skip_connection(self.resample(x)) + hidden
