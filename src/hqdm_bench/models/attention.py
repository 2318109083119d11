"""Attention of the UNet: plain over pixels, and the transformer with a class token.

Products are plain matrix multiplications around a softmax, so that every intermediate can be
reached and the result does not depend on which fused kernel a machine has.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqdm_bench.models.unet_config import GROUPS

__all__ = ["AttentionBlock", "QKVAttention", "SpatialTransformer", "TokenAttention", "zeroed"]

TRANSFORMER_NORM_EPS = 1e-6  # ten times smaller than elsewhere in the UNet


def zeroed(layer: nn.Conv1d | nn.Conv2d) -> nn.Conv1d | nn.Conv2d:
    """Set a layer's weights to zero, so that its residual branch starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class QKVAttention(nn.Module):
    """Attention on a fused projection whose rows are ordered (head, q | k | v, channel)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, qkv: Tensor) -> Tensor:
        """Map (B, 3C, T) to (B, C, T)."""
        batch, rows, tokens = qkv.shape
        width = rows // (3 * self.heads)
        query, key, value = qkv.reshape(batch * self.heads, 3 * width, tokens).split(width, dim=1)
        # Both factors take the fourth root of 1/d: the product stays small in half precision.
        scale = width**-0.25
        weights = torch.softmax((query * scale).transpose(1, 2) @ (key * scale), dim=-1)
        return (value @ weights.transpose(1, 2)).reshape(batch, -1, tokens)


class AttentionBlock(nn.Module):
    """Self-attention over pixels with a residual connection (ADM)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.attention = QKVAttention(heads)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        hidden = self.attention(self.qkv(self.norm(x).flatten(2)))
        return x + self.proj_out(hidden).reshape(x.shape)


class TokenAttention(nn.Module):
    """softmax(q k^T scale) v; a module of its own, so that it can be computed otherwise."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map (B, heads, T, d) and twice (B, heads, L, d) to (B, heads, T, d)."""
        return torch.softmax(query @ key.transpose(2, 3) * self.scale, dim=-1) @ value


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a context, or to themselves."""

    def __init__(self, channels: int, context_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention = TokenAttention((channels // heads) ** -0.5)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(dropout))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map tokens (B, T, C), and a context (B, L, D), to (B, T, C)."""
        context = x if context is None else context
        query, key, value = (
            self._split(tokens) for tokens in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(self.attention(query, key, value).transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, C) to (B, heads, T, C / heads)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GatedLinear(nn.Module):
    """GEGLU (Shazeer, 2020): one half of a projection gated by the GELU (erf form) of the other."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., width)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """Gated projection to four times the width, and back."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        width = 4 * channels
        self.net = nn.Sequential(
            GatedLinear(channels, width), nn.Dropout(dropout), nn.Linear(width, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward; each normalised and residual."""

    def __init__(self, channels: int, context_dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        # In the order of the reference: layer policies count layers as they are defined.
        self.attn1 = CrossAttention(channels, channels, heads, dropout)
        self.ff = FeedForward(channels, dropout)
        self.attn2 = CrossAttention(channels, context_dim, heads, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map tokens (B, T, C) and a context (B, L, D) to (B, T, C)."""
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map (Rombach et al., 2022)."""

    def __init__(
        self, channels: int, heads: int, depth: int, context_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, eps=TRANSFORMER_NORM_EPS)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(channels, context_dim, heads, dropout) for _ in range(depth)
        )
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map (B, C, h, w) and a context (B, L, D) to (B, C, h, w)."""
        # For channels-last input both reshapes are views.
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return self.proj_out(tokens.transpose(1, 2).unflatten(2, x.shape[2:])) + x
