"""Paired errors: each image against the full-precision model's from the same noise and label."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqdm_bench.common.errors import BenchError
from hqdm_bench.sample import Samples, read_shard

__all__ = ["PairedErrors", "latent_errors", "paired_errors", "peak_signal_to_noise"]

PEAK = 255.0
BLOCK = 256  # images converted to float64 at a time


@dataclass(frozen=True)
class PairedErrors:
    """Summary over images.

    A few chaotic trajectories dominate the means, so medians stand beside them.

    Attributes:
        latent_mse_mean: mean over images of the mean squared latent difference.
        latent_mse_median: median of the same.
        psnr_mean: mean over images of the peak signal-to-noise ratio in dB.
        psnr_median: median of the same.
    """

    latent_mse_mean: float
    latent_mse_median: float
    psnr_mean: float
    psnr_median: float


def paired_errors(samples: Sequence[Path], baseline: Sequence[Path]) -> PairedErrors:
    """Compare two image sets image by image.

    Args:
        samples: shards of a student, in order.
        baseline: shards of the full-precision model under the same protocol, in order.

    Raises:
        BenchError: labels, image numbers or shapes do not agree.
    """
    if len(samples) != len(baseline) or not samples:
        raise BenchError(
            f"{len(samples)} shards cannot be paired with {len(baseline)} shards of the baseline; "
            "draw both under one protocol"
        )
    errors: list[NDArray[np.float64]] = []
    ratios: list[NDArray[np.float64]] = []
    for path, other_path in zip(samples, baseline, strict=True):
        mse, psnr = _shard_errors(path, other_path, sum(map(len, errors)))
        errors.append(mse)
        ratios.append(psnr)
    mse, psnr = np.concatenate(errors), np.concatenate(ratios)
    return PairedErrors(
        float(mse.mean()), float(np.median(mse)), float(psnr.mean()), float(np.median(psnr))
    )


def _shard_errors(
    path: Path, other_path: Path, first: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latent errors and signal-to-noise ratios of one shard; both shards are freed on return."""
    own, other = read_shard(path), read_shard(other_path)
    if own.index[0] != first:
        raise BenchError(
            f"{path} starts with image {own.index[0]}, expected {first}; draw it again"
        )
    _require_same_images(own, other, path, other_path)
    return (
        latent_errors(own.latents, other.latents),
        peak_signal_to_noise(own.images, other.images),
    )


def _require_same_images(own: Samples, other: Samples, path: Path, other_path: Path) -> None:
    for name in ("index", "labels"):
        if not np.array_equal(getattr(own, name), getattr(other, name)):
            raise BenchError(
                f"{path} and {other_path} differ in {name}; a paired error needs the same noise "
                "and labels, draw both under one protocol"
            )
    for name in ("images", "latents"):
        shapes = getattr(own, name).shape, getattr(other, name).shape
        if shapes[0] != shapes[1]:
            raise BenchError(f"{path} and {other_path} hold {name} of shapes {shapes}")


def latent_errors(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) mean squared difference of (n, C, h, w) latents."""
    return _mean_squares(a, b)


def peak_signal_to_noise(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(n,) peak signal-to-noise ratio 10 log10(255^2 / MSE) in dB of (n, H, W, C) uint8 images.

    Identical images, whose ratio is infinite, count as if one value were off by one grey level:
    MSE = 1 / (H W C), 83.0 dB at 32 x 32 x 3. No other pair of images reaches more.
    """
    floor = 1 / np.prod(a.shape[1:])
    return 10 * np.log10(PEAK**2 / np.maximum(_mean_squares(a, b), floor))


def _mean_squares(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    parts = []
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        difference = a[rows].astype(np.float64) - b[rows].astype(np.float64)
        parts.append(np.square(difference).reshape(len(difference), -1).mean(1))
    return np.concatenate(parts)
