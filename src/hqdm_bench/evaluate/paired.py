"""Paired errors: each image against the full-precision model's from the same noise and label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.perceptual import PerceptualDistance
from hqdm_bench.evaluate.structural_similarity import structural_similarity
from hqdm_bench.sample import Samples, read_shard

__all__ = [
    "PairedErrors",
    "latent_errors",
    "paired_errors",
    "paired_replicates",
    "peak_signal_to_noise",
    "trace_errors",
]

PEAK = 255.0
BLOCK = 256  # images converted to float64 at a time
SIMILARITY_PIXELS = 2**20  # pixels of images whose similarity is measured at a time

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairedErrors:
    """Errors image by image.

    Attributes:
        latent_mse: (n,) mean squared difference of the latents.
        psnr: (n,) peak signal-to-noise ratio in dB.
        ssim: (n,) structural similarity.
        growth: (m, S) mean squared difference of the latents of the first m images after each
            sampling step, the first step first; None where no trace was recorded.
        timesteps: (S,) at which each of these steps asked the model; empty without a trace.
        lpips: (n,) perceptual distance; None where its weights were not given.
    """

    latent_mse: Values
    psnr: Values
    ssim: Values
    growth: Values | None = None
    timesteps: tuple[int, ...] = ()
    lpips: Values | None = None

    @property
    def per_image(self) -> Mapping[str, Values]:
        """The errors that every image has."""
        found = {"latent_mse": self.latent_mse, "psnr": self.psnr, "ssim": self.ssim}
        return found if self.lpips is None else found | {"lpips": self.lpips}

    def summary(self) -> dict[str, Any]:
        """Means and medians, as in the metrics file.

        A few chaotic trajectories dominate the means, so medians stand beside them.
        """
        found: dict[str, Any] = {}
        for name, values in self.per_image.items():
            found[f"{name}_mean"] = float(values.mean())
            found[f"{name}_median"] = float(np.median(values))
        if self.growth is not None:
            found["growth"] = [
                {
                    "step": step,
                    "timestep": timestep,
                    "latent_mse_mean": float(errors.mean()),
                    "latent_mse_median": float(np.median(errors)),
                }
                for step, (timestep, errors) in enumerate(
                    zip(self.timesteps, self.growth.T, strict=True)
                )
            ]
        return found


def paired_errors(
    samples: Sequence[Path],
    baseline: Sequence[Path],
    protocol: Protocol,
    device: torch.device | None = None,
    perceptual: PerceptualDistance | None = None,
) -> PairedErrors:
    """Compare two image sets image by image.

    Args:
        samples: shards of a student, in order.
        baseline: shards of the full-precision model under the same protocol, in order.
        protocol: of both.
        device: where structural similarities are computed, in float64; the CPU if None.
        perceptual: LPIPS, if its weights are at hand.

    Raises:
        BenchError: labels, image numbers, shapes or traces do not agree with each other or with the
            protocol.
    """
    if len(samples) != len(baseline) or not samples:
        raise BenchError(
            f"{len(samples)} shards cannot be paired with {len(baseline)} shards of the baseline; "
            "draw both under one protocol"
        )
    parts: list[PairedErrors] = []
    for path, other_path in zip(samples, baseline, strict=True):
        first = sum(len(part.psnr) for part in parts)
        own, other = _read_pair(path, other_path, first)
        parts.append(_errors(own, other, protocol, device, perceptual))
        del own, other  # or two pairs of shards would be held while one is read
    traces = [part.growth for part in parts if part.growth is not None]
    growth = np.concatenate(traces) if traces else None
    _require_trace(growth, protocol, samples[0])
    whole = {
        name: np.concatenate([part.per_image[name] for part in parts])
        for name in parts[0].per_image
    }
    return PairedErrors(**whole, growth=growth, timesteps=_timesteps(protocol) if traces else ())


def _timesteps(protocol: Protocol) -> tuple[int, ...]:
    """Timesteps of the sampling steps, the first one first: 951, ..., 51, 1 for twenty."""
    stride = 1000 // protocol.steps
    return tuple(range(1000 - stride + 1, 0, -stride))


def _require_trace(growth: Values | None, protocol: Protocol, path: Path) -> None:
    wanted = (protocol.trace_images, protocol.steps) if protocol.trace_images else None
    found = None if growth is None else growth.shape
    if wanted != found:
        raise BenchError(
            f"{path} and what belongs to it hold a trace of (images, steps) {found}, protocol "
            f"'{protocol.name}' asks for {wanted}; draw the student's and the full-precision "
            "images again"
        )


def _read_pair(path: Path, other_path: Path, first: int) -> tuple[Samples, Samples]:
    own, other = read_shard(path), read_shard(other_path)
    if own.index[0] != first:
        raise BenchError(
            f"{path} starts with image {own.index[0]}, expected {first}; draw it again"
        )
    _require_same_images(own, other, path, other_path)
    return own, other


def _errors(
    own: Samples,
    other: Samples,
    protocol: Protocol,
    device: torch.device | None,
    perceptual: PerceptualDistance | None,
) -> PairedErrors:
    """Errors of one shard."""
    growth = None
    if own.trace is not None and other.trace is not None and protocol.trace_images:
        growth = trace_errors(own.trace, other.trace)
    pair = torch.from_numpy(own.images), torch.from_numpy(other.images)
    return PairedErrors(
        latent_errors(own.latents, other.latents),
        peak_signal_to_noise(own.images, other.images),
        _similarities(*pair, device),
        growth,
        lpips=None if perceptual is None else perceptual(*pair).numpy(),
    )


def _require_same_images(own: Samples, other: Samples, path: Path, other_path: Path) -> None:
    for name in ("index", "labels"):
        if not np.array_equal(getattr(own, name), getattr(other, name)):
            raise BenchError(
                f"{path} and {other_path} differ in {name}; a paired error needs the same noise "
                "and labels, draw both under one protocol"
            )
    for name in ("images", "latents", "trace"):
        arrays = getattr(own, name), getattr(other, name)
        shapes = [None if array is None else array.shape for array in arrays]
        if shapes[0] != shapes[1]:
            raise BenchError(
                f"{path} and {other_path} hold {name} of shapes {shapes[0]} and {shapes[1]}; draw "
                "both under one protocol"
            )


def latent_errors(a: NDArray[np.float32], b: NDArray[np.float32]) -> Values:
    """(n,) mean squared difference of (n, C, h, w) latents."""
    return _mean_squares(a, b)


def trace_errors(a: NDArray[np.float32], b: NDArray[np.float32]) -> Values:
    """(m, S) mean squared difference of (m, S, C, h, w) latents along two trajectories."""
    return _mean_squares(a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:])).reshape(
        a.shape[:2]
    )


def peak_signal_to_noise(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Values:
    """(n,) peak signal-to-noise ratio 10 log10(255^2 / MSE) in dB of (n, H, W, C) uint8 images.

    Identical images, whose ratio is infinite, count as if one value were off by one grey level:
    MSE = 1 / (H W C), 83.0 dB at 32 x 32 x 3. No other pair of images reaches more.
    """
    floor = 1 / np.prod(a.shape[1:])
    return 10 * np.log10(PEAK**2 / np.maximum(_mean_squares(a, b), floor))


def _mean_squares(a: NDArray[Any], b: NDArray[Any]) -> Values:
    parts = []
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        difference = a[rows].astype(np.float64) - b[rows].astype(np.float64)
        parts.append(np.square(difference).reshape(len(difference), -1).mean(1))
    return np.concatenate(parts)


def _similarities(a: Tensor, b: Tensor, device: torch.device | None) -> Values:
    size = max(1, SIMILARITY_PIXELS // (a.shape[1] * a.shape[2]))
    parts = [
        structural_similarity(one.to(device), other.to(device)).cpu()
        for one, other in zip(a.split(size), b.split(size), strict=True)
    ]
    return torch.cat(parts).numpy()


def paired_replicates(errors: PairedErrors, draws: NDArray[np.int64]) -> dict[str, Values]:
    """(B,) bootstrap replicates of every mean and median over images.

    Args:
        errors: of a student.
        draws: (B, n) numbers of the images each replicate draws, the same as for its features.
    """
    found: dict[str, Values] = {}
    for name, values in errors.per_image.items():
        drawn = values[draws]
        found |= {f"{name}_mean": drawn.mean(1), f"{name}_median": np.median(drawn, axis=1)}
    return found
