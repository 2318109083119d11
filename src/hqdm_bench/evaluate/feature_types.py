"""What a feature extractor is, and what it gives."""

from typing import NamedTuple, Protocol

from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["Extractor", "Features", "require_matrix"]


def require_matrix(name: str, values: Tensor) -> None:
    """Check that something is a matrix of numbers, one row an image.

    Args:
        name: what it is, for the message.
        values: what was given.

    Raises:
        BenchError: no tensor, complex, or not of shape (n, d) with d >= 1.
    """
    if not isinstance(values, Tensor):
        raise BenchError(
            f"{name} are a {type(values).__name__}; give a torch tensor (torch.from_numpy(...))"
        )
    if values.dim() != 2 or not values.shape[1] or values.is_complex():
        raise BenchError(
            f"{name} are {values.dtype} of shape {tuple(values.shape)}; give real numbers of shape "
            "(n, d), one row an image"
        )


class Features(NamedTuple):
    """Features of n images, float32 on the CPU.

    Attributes:
        pool: (n, d) globally averaged features: Frechet distance, precision, recall.
        spatial: (n, s) part of an inner map, flattened in the order H, W, C: spatial Frechet
            distance.
        logits: (n, c) class scores, without the head's bias where the metric's definition has none.
        clean: (n, d) pooled features of the images resized as clean-fid does; None where they were
            not asked for.
    """

    pool: Tensor
    spatial: Tensor
    logits: Tensor
    clean: Tensor | None = None


class Extractor(Protocol):
    """A frozen network; name and weights digest are recorded with every number it leads to."""

    @property
    def name(self) -> str:
        """Name under which the catalogue knows it."""

    @property
    def sha256(self) -> str:
        """Digest of the weights file it was published or shipped as."""

    def __call__(self, images: Tensor) -> Features:
        """Features of (n, H, W, 3) uint8 images."""
