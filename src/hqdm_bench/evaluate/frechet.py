"""Frechet distance between Gaussians: FID on pooled features, sFID on spatial ones."""

import copy
from typing import Self

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.feature_types import require_matrix
from hqdm_bench.evaluate.moments import Gaussian, Moments, streaming_moments

__all__ = ["FrechetTarget", "frechet_distance", "gaussian_of"]


def frechet_distance(
    generated: Tensor | Gaussian | Moments, reference: Tensor | Gaussian | Moments
) -> float:
    """Squared Frechet distance |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2).

    Heusel et al. 2017, Eq. 6 (FID); on spatial features Nash et al. 2021 (sFID). The trace of the
    root is that of the symmetric (S_b^1/2 S_a S_b^1/2)^1/2: real by construction, so neither the
    offset nor the imaginary part of the usual matrix square root arises. Eigenvalues below zero are
    rounding and are clipped. The result is not clipped: for equal sets it is zero up to rounding of
    either sign.

    Args:
        generated: (n, d) features of generated images, or their mean and covariance.
        reference: the same of real images.

    Raises:
        BenchError: no (n, d) matrices, different dimensions, fewer than two points, or moments that
            are not finite.
    """
    return FrechetTarget(gaussian_of(reference)).distance(gaussian_of(generated))


def gaussian_of(features: Tensor | Gaussian | Moments) -> Gaussian:
    """Mean and covariance, of (n, d) features if they are given.

    Raises:
        BenchError: features that are no (n, d) matrix, or fewer than two points.
    """
    if isinstance(features, Gaussian):
        return features
    if not isinstance(features, Moments):
        require_matrix("features", features)
        features = streaming_moments([features])
    return features.gaussian


class FrechetTarget:
    """A distribution that many others are measured against; its root is computed once.

    Args:
        reference: its mean and covariance.

    Attributes:
        mean: (d,) of the reference.
        trace: of its covariance.
        root: (d, d) symmetric square root of its covariance.
        values: (d,) eigenvalues of its covariance, not below zero.

    Raises:
        BenchError: its moments are not finite.
    """

    def __init__(self, reference: Gaussian) -> None:
        _require_finite(reference.covariance)
        values, vectors = torch.linalg.eigh(reference.covariance)
        self.values = values.clamp(min=0)
        self.root = (vectors * self.values.sqrt()) @ vectors.T
        self.mean, self.trace = reference.mean, reference.covariance.trace()

    def to(self, device: torch.device | None) -> Self:
        """The same on a device; itself if it is there."""
        moved = copy.copy(self)
        for name in ("values", "root", "mean", "trace"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def distance(self, generated: Gaussian) -> float:
        """Squared Frechet distance of another distribution.

        Raises:
            BenchError: it has other dimensions, or its moments are not finite.
        """
        if generated.mean.shape != self.mean.shape:
            raise BenchError(
                f"features of {len(generated.mean)} and {len(self.mean)} dimensions cannot be "
                "compared; extract both with the same extractor"
            )
        _require_finite(generated.covariance)
        product = torch.linalg.eigvalsh(self.root @ generated.covariance @ self.root)
        shift = (generated.mean - self.mean).square().sum()
        return float(self.combine(shift, generated.covariance.trace(), product))

    def combine(self, shift: Tensor, trace: Tensor, product: Tensor) -> Tensor:
        """The distance from its parts.

        Args:
            shift: squared distance of the means.
            trace: of the other covariance S.
            product: eigenvalues of R S R, R being `root`; zero ones may be left out.
        """
        return shift + trace + self.trace - 2 * product.clamp(min=0).sqrt().sum()


def _require_finite(covariance: Tensor) -> None:
    if not torch.isfinite(covariance).all():
        raise BenchError("features hold values that are not finite; extract them again")
