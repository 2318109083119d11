"""Frechet distance between Gaussians: FID on pooled features, sFID on spatial ones."""

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.moments import Gaussian, Moments

__all__ = ["frechet_distance"]


def frechet_distance(a: Gaussian | Moments, b: Gaussian | Moments) -> float:
    """Squared Frechet distance |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2).

    Heusel et al. 2017, Eq. 6 (FID); on spatial features Nash et al. 2021 (sFID). The trace of the
    root is that of the symmetric (S_a^1/2 S_b S_a^1/2)^1/2: real by construction, so neither the
    offset nor the imaginary part of the usual matrix square root arises. Eigenvalues below zero are
    rounding and are clipped. The result is not clipped: for equal sets it is zero up to rounding of
    either sign.

    Raises:
        BenchError: different dimensions, fewer than two points, or moments that are not finite.
    """
    if a.mean.shape != b.mean.shape:
        raise BenchError(
            f"features of {len(a.mean)} and {len(b.mean)} dimensions cannot be compared; "
            "extract both with the same extractor"
        )
    cov_a, cov_b = a.covariance, b.covariance
    if not (torch.isfinite(cov_a).all() and torch.isfinite(cov_b).all()):
        raise BenchError("features hold values that are not finite; extract them again")
    root = _square_root(cov_a)
    product = torch.linalg.eigvalsh(root @ cov_b @ root)
    trace_of_root = product.clamp(min=0).sqrt().sum()
    shift = (a.mean - b.mean).square().sum()
    return float(shift + cov_a.trace() + cov_b.trace() - 2 * trace_of_root)


def _square_root(covariance: Tensor) -> Tensor:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
