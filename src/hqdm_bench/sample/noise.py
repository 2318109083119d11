"""Noise of each image from its own generator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hqdm_bench.common.seeds import generator

__all__ = ["ImageNoise"]


class ImageNoise:
    """Standard normal draws for a batch; row j is a pure function of (seed, indices[j]).

    The first draw is x_T, the following ones are the step noises of a sampler with eta above 0. A
    deterministic sampler takes x_T only, so both start from the same x_T.

    Args:
        seed: of the image set.
        indices: image numbers of the batch.
        shape: of one draw for one image, (C, h, w).
    """

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._generators = [generator("image-noise", seed, index) for index in indices]

    def draw(self) -> Tensor:
        """Next noise of every image, (B, C, h, w) float32 on the CPU."""
        return torch.stack([torch.randn(self._shape, generator=own) for own in self._generators])
