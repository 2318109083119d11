"""Attention between integer layers, in float32.

PyTorch sends float32 matrix products to the BLAS, which takes twice as long as oneDNN on some
processors, and goes through the scores of all heads three times, which do not fit a cache. Here
every head is finished before the next. The numbers are the same up to rounding.
"""

import torch
from torch import Tensor, nn

from hqdm_bench.models.attention import QKVAttention, TokenAttention

__all__ = ["OneDNNQKVAttention", "OneDNNTokenAttention", "faster_attention", "plain_attention"]

SMALLEST = 2**21  # multiply-accumulates of a head's scores from which the detour pays


def faster_attention(layer: nn.Module) -> nn.Module | None:
    """What computes a layer's attention faster, or None."""
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return None
    if type(layer) is TokenAttention:
        return OneDNNTokenAttention(layer.scale)
    if type(layer) is QKVAttention:
        return OneDNNQKVAttention(layer.heads)
    return None


def plain_attention(layer: nn.Module) -> nn.Module | None:
    """The inverse: PyTorch's own operations, or None if the layer is none of these."""
    if isinstance(layer, OneDNNTokenAttention):
        return TokenAttention(layer.scale)
    return QKVAttention(layer.heads) if isinstance(layer, OneDNNQKVAttention) else None


def _product(rows: Tensor, others: Tensor) -> Tensor:
    """Rows times rows: (n, d) and (m, d) to (n, m)."""
    return torch.ops.mkldnn._linear_pointwise(
        rows.contiguous(), others.contiguous(), None, "none", [], ""
    )


def _pays(x: Tensor, scores: int, width: int) -> bool:
    return scores * width >= SMALLEST and x.dtype == torch.float32 and x.device.type == "cpu"


class OneDNNTokenAttention(TokenAttention):
    """`TokenAttention` head by head."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `TokenAttention`."""
        batch, heads, tokens, width = query.shape
        if not _pays(query, tokens * key.shape[2], width):
            return super().forward(query, key, value)
        # Heads side by side, as the next layer reads them.
        out = query.new_empty(batch, tokens, heads, width)
        for image in range(batch):
            for head in range(heads):
                scores = _product(query[image, head], key[image, head])
                weights = torch.softmax(scores.mul_(self.scale), dim=-1)
                out[image, :, head] = _product(weights, value[image, head].t())
        return out.transpose(1, 2)


class OneDNNQKVAttention(QKVAttention):
    """`QKVAttention` head by head; the result is channels-last."""

    def forward(self, qkv: Tensor) -> Tensor:
        """See `QKVAttention`."""
        batch, rows, tokens = qkv.shape
        width = rows // (3 * self.heads)
        if not _pays(qkv, tokens * tokens, width):
            return super().forward(qkv)
        scale = width**-0.25
        parts = qkv.unflatten(1, (self.heads, 3, width))
        out = qkv.new_empty(batch, tokens, self.heads, width)
        for image in range(batch):
            for head in range(self.heads):
                query, key, value = parts[image, head]
                scores = _product(query.t() * scale, key.t() * scale)
                out[image, :, head] = _product(torch.softmax(scores, dim=-1), value)
        return out.flatten(2).transpose(1, 2)
