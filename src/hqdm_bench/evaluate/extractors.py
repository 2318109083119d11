"""Feature extractors: what stands between pixels and every distribution metric."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.models.mini.classifier import load_classifier

__all__ = ["EXTRACTORS", "Extractor", "Features", "MiniExtractor", "load_extractor"]


class Features(NamedTuple):
    """Features of n images, float32 on the CPU.

    Attributes:
        pool: (n, d) globally averaged features: Frechet distance, precision, recall.
        spatial: (n, s) part of an inner map, flattened in the order H, W, C: spatial Frechet
            distance.
        logits: (n, c) class scores, without the head's bias where the metric's definition has none.
    """

    pool: Tensor
    spatial: Tensor
    logits: Tensor


class Extractor(Protocol):
    """A frozen network; name and weights digest are recorded with every number it leads to."""

    @property
    def name(self) -> str:
        """Name under which the catalogue knows it."""

    @property
    def sha256(self) -> str:
        """Digest of its weights file."""

    def __call__(self, images: Tensor) -> Features:
        """Features of (n, H, W, 3) uint8 images."""


class MiniExtractor:
    """The classifier of the embedded scenes.

    Args:
        path: its weights.

    Raises:
        BenchError: the file is missing or holds something else.
    """

    name = "mini-classifier"

    def __init__(self, path: Path) -> None:
        self._classifier = load_classifier(path)[0].eval().requires_grad_(False)
        self.sha256 = sha256_of(path)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Features of (n, H, W, 3) uint8 images: pool (n, 64), spatial (n, 448), logits (n, c)."""
        device = next(self._classifier.parameters()).device
        output = self._classifier(images.to(device))
        parts = (output.features, output.spatial, output.logits)
        return Features(*(part.float().cpu() for part in parts))


EXTRACTORS: Mapping[str, Callable[[Path], Extractor]] = {MiniExtractor.name: MiniExtractor}


def load_extractor(name: str, path: Path) -> Extractor:
    """Build an extractor from its weights.

    Raises:
        BenchError: no such extractor, or unusable weights.
    """
    if name not in EXTRACTORS:
        known = ", ".join(sorted(EXTRACTORS))
        raise BenchError(f"there is no feature extractor '{name}'; this version has: {known}")
    return EXTRACTORS[name](path)
