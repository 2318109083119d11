"""Embeddings: of the timestep (fixed sinusoids) and of the class (learned)."""

import functools
import math

import torch
from torch import Tensor, nn

__all__ = ["ClassEmbedder", "timestep_embedding"]

LONGEST_PERIOD = 10_000.0


def timestep_embedding(timesteps: Tensor, channels: int) -> Tensor:
    """Sinusoids of the timestep: cosines first, then sines (Ho et al., 2020, as ADM orders them).

    Computed in float32 whatever the weights are: the published models were trained on these very
    roundings, and a float64 embedding differs from them by more than float64 tests allow.

    Args:
        timesteps: (B,), integer or floating point.
        channels: width of the embedding, even.

    Returns:
        (B, channels), float32.
    """
    half = channels // 2
    angles = timesteps[:, None].float() * _frequencies(half, timesteps.device)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


@functools.lru_cache(maxsize=64)
def _frequencies(half: int, device: torch.device) -> Tensor:
    """Computed on the CPU, so they are the same numbers everywhere; a GPU is sent them once."""
    with torch.inference_mode(False), torch.no_grad():
        index = torch.arange(half, dtype=torch.float32)
        return torch.exp(-math.log(LONGEST_PERIOD) * index / half).to(device)


class ClassEmbedder(nn.Module):
    """One learned token per class.

    Args:
        n_classes: classes, including the null class (the last) if there is one.
        embed_dim: width of the token.
    """

    def __init__(self, n_classes: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_classes, embed_dim)

    def forward(self, labels: Tensor) -> Tensor:
        """Tokens (B, 1, embed_dim) of labels (B,)."""
        return self.embedding(labels)[:, None, :]
