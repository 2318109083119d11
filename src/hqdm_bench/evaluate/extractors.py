"""Feature extractors: what stands between pixels and every distribution metric."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.evaluate.exact import exact_float32
from hqdm_bench.evaluate.feature_types import Extractor, Features
from hqdm_bench.evaluate.inception import InceptionExtractor
from hqdm_bench.models.mini.classifier import load_classifier

__all__ = [
    "EXTRACTORS",
    "Extractor",
    "Features",
    "InceptionExtractor",
    "MiniExtractor",
    "load_extractor",
]


class MiniExtractor:
    """The classifier of the embedded scenes.

    Args:
        path: its weights.
        device: where it runs.

    Attributes:
        sha256: digest of the weights file.

    Raises:
        BenchError: the file is missing or holds something else.
    """

    name = "mini-classifier"

    def __init__(self, path: Path, device: torch.device | None = None) -> None:
        self._device = device or torch.device("cpu")
        classifier = load_classifier(path)[0].eval().requires_grad_(False)
        self._classifier = classifier.to(self._device)
        self.sha256 = sha256_of(path)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Features of (n, H, W, 3) uint8 images: pool (n, 64), spatial (n, 448), logits (n, c)."""
        with exact_float32():
            output = self._classifier(images.to(self._device))
        parts = (output.features, output.spatial, output.logits)
        return Features(*(part.float().cpu() for part in parts))


EXTRACTORS: Mapping[str, Callable[[Path, torch.device | None], Extractor]] = {
    MiniExtractor.name: MiniExtractor,
    InceptionExtractor.name: InceptionExtractor,
}


def load_extractor(name: str, path: Path, device: torch.device | None = None) -> Extractor:
    """Build an extractor from its weights.

    Args:
        name: catalogue name.
        path: weights that verb ``extractor`` made.
        device: where it runs, the CPU if None; features come back to the CPU.

    Raises:
        BenchError: no such extractor, or unusable weights.
    """
    if name not in EXTRACTORS:
        known = ", ".join(sorted(EXTRACTORS))
        raise BenchError(f"there is no feature extractor '{name}'; this version has: {known}")
    return EXTRACTORS[name](path, device)
