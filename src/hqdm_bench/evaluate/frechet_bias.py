"""How much of a Frechet distance is owed to the number of images."""

from typing import NamedTuple

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.evaluate.feature_types import require_matrix
from hqdm_bench.evaluate.frechet import FrechetTarget, gaussian_of
from hqdm_bench.evaluate.moments import Gaussian, Moments, streaming_moments

__all__ = ["Extrapolation", "bias_constant", "fid_infinity", "frechet_bias"]

SIZES = 15
SMALLEST = 0.1  # share of the images in the smallest subset


def bias_constant(covariance: Tensor) -> float:
    """The c of the first-order bias c / N of a Frechet distance.

    A sample of N points of a Gaussian with covariance S has, against that Gaussian, a mean squared
    Frechet distance of c / N + O(1 / N^2), with eigenvalues l_i of S and

        c = 5/4 tr S + 1/2 sum_ij l_i l_j / (l_i + l_j).

    The mean's error gives tr S, the second-order term of the root's trace the rest.

    Args:
        covariance: (d, d) of the reference.
    """
    return _constant(torch.linalg.eigvalsh(covariance).clamp(min=0))


def _constant(values: Tensor) -> float:
    sums = values[:, None] + values
    pairs = torch.where(sums > 0, values[:, None] * values / sums.clamp(min=1e-300), 0.0)
    return float(1.25 * values.sum() + 0.5 * pairs.sum())


def frechet_bias(reference: Gaussian | FrechetTarget, images: int) -> float:
    """What a model with exactly the reference's distribution would score with that many images.

    First order, for features as of a Gaussian: the amount by which a Frechet distance of a model
    close to its reference is too high on average.

    Args:
        reference: mean and covariance of the reference features.
        images: number N of generated images.
    """
    if isinstance(reference, FrechetTarget):
        return _constant(reference.values) / images
    return bias_constant(reference.covariance) / images


class Extrapolation(NamedTuple):
    """A distance fitted as intercept + slope / N.

    Attributes:
        intercept: the distance of infinitely many images.
        slope: of 1 / N; the bias at N images is slope / N.
        sizes: of the subsets.
        distances: measured on them.
    """

    intercept: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def fid_infinity(
    features: Tensor, reference: Tensor | Gaussian | Moments, sizes: int = SIZES
) -> Extrapolation:
    """Frechet distance extrapolated to infinitely many generated images (Chong and Forsyth 2020).

    Distances of random subsets of 10 % to 100 % of the images, evenly spaced, are fitted against
    1 / N by least squares. That removes the bias of the generated side, not its sampling error, nor
    the bias of a reference made of few images. Every subset has a permutation of its own, from the
    stream ``fid-infinity``.

    Args:
        features: (n, d) features of generated images.
        reference: features of real images, or their mean and covariance.
        sizes: number of subsets.

    Raises:
        BenchError: fewer than two subsets, the smallest has fewer than two images, no (n, d)
            matrix, or the dimensions differ.
    """
    require_matrix("features", features)
    if sizes < 2 or SMALLEST * len(features) < 2:
        raise BenchError(
            f"an extrapolation from {sizes} subsets of {len(features)} images is not defined; take "
            "at least two subsets and 20 images"
        )
    target = FrechetTarget(gaussian_of(reference))
    shares = torch.linspace(SMALLEST, 1, sizes, dtype=torch.float64)
    counts = [round(float(share) * len(features)) for share in shares]
    distances = []
    for number, count in enumerate(counts):
        order = torch.randperm(
            len(features), generator=generator("fid-infinity", len(features), number)
        )[:count]
        distances.append(target.distance(streaming_moments([features[order]]).gaussian))
    inverse = 1 / torch.tensor(counts, dtype=torch.float64)
    design = torch.stack([torch.ones_like(inverse), inverse], 1)
    measured = torch.tensor(distances, dtype=torch.float64)
    intercept, slope = torch.linalg.lstsq(design, measured[:, None]).solution[:, 0].tolist()
    return Extrapolation(intercept, slope, tuple(counts), tuple(distances))
