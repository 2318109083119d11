"""Choosing a quantization grid from data: range and mean-error searches.

The rules are those of BRECQ and its descendants (EfficientDM, HQ-DM, Q-Diffusion, PTQD and others
share them).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hqdm_bench.catalogue.bits import ACTIVATION_BITS, WEIGHT_BITS
from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.search import best_candidates

__all__ = [
    "CANDIDATES",
    "Grid",
    "check_activation_bits",
    "check_weight_bits",
    "minmax_grid",
    "mse_grid",
    "symmetric_limit",
    "symmetric_max_scale",
    "symmetric_mse_scale",
    "unsigned_mse_scale",
]

CANDIDATES = 80  # shrink factors 1, 0.99, ..., 0.21
SMALLEST_SCALE = 1e-8


@dataclass(frozen=True)
class Grid:
    """Asymmetric uniform grid x_hat = (clip(round(x/scale) + zero, 0, 2^b - 1) - zero) * scale.

    Attributes:
        scale: step size, 0-d or (channels,).
        zero: zero-point, an integer in floating point, same shape. One-sided data get one outside
            [0, 2^b - 1] from a mean-error search.
        best_index: winning candidate of a mean-error search (int64), None for a range.
    """

    scale: Tensor
    zero: Tensor
    best_index: Tensor | None = None

    def for_weight(self, weight: Tensor) -> "Grid":
        """Scale and zero-point shaped (c_out, 1, ...) to broadcast over ``weight``."""
        shape = (-1, *[1] * (weight.dim() - 1))
        return Grid(self.scale.view(shape), self.zero.view(shape), self.best_index)


def check_weight_bits(bits: int) -> int:
    """Return ``bits`` if weights can have it.

    Raises:
        BenchError: not 2 to 8, and not 16.
    """
    if bits not in WEIGHT_BITS:
        raise BenchError(f"weights take 2 to 8 bits, or 16, not {bits}")
    return bits


def check_activation_bits(bits: int) -> int:
    """Return ``bits`` if activations can have it.

    Raises:
        BenchError: not 3 to 8, and not 16.
    """
    if bits not in ACTIVATION_BITS:
        raise BenchError(f"activations take 3 to 8 bits, or 16, not {bits}")
    return bits


def symmetric_limit(bits: int) -> int:
    """Largest code of the symmetric grid, 2^(b-1) - 1; the most negative code stays unused."""
    return int(2 ** (bits - 1) - 1)


def minmax_grid(x: Tensor, bits: int, per_channel: bool) -> Grid:
    """Grid that covers [min(x, 0), max(x, 0)].

    The step is range / (2^b - 1) in double precision and z = round(-min / step) uses that double;
    both are then stored in the precision of x.

    Args:
        x: any shape; the first axis is the channel if ``per_channel``.
        bits: b.
        per_channel: one grid for each row, else one for the tensor.
    """
    rows = _rows(x, per_channel)
    low, high = (extreme.squeeze(1).double() for extreme in _extremes(rows))
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=SMALLEST_SCALE)
    zero = (-low / scale).round()
    return _shaped(scale.to(x.dtype), zero.to(x.dtype), None, per_channel)


def mse_grid(x: Tensor, bits: int, per_channel: bool) -> Grid:
    """Grid with the least mean |x - x_hat|^2.4 among 80 that shrink the range of x.

    Candidate i multiplies the raw minimum and maximum by 1 - 0.01 i; zero is not forced into the
    range. The first of equal scores wins. A channel without a range (all zero, or constant) takes
    the `minmax_grid`.

    Args:
        x: any shape; the first axis is the channel if ``per_channel``.
        bits: b.
        per_channel: one search for each row, else one for the tensor.
    """
    rows = _rows(x, per_channel)
    low, high = (extreme * _shrink_factors(x) for extreme in _extremes(rows))
    flat = (high <= low)[:, 0]
    scales = (high - low) / (2**bits - 1)  # (channels, candidates)
    scales[flat] = 1.0
    zeros = (-low / scales).round()
    best = best_candidates(rows, scales, -zeros, 2**bits - 1 - zeros)
    scale, zero = _pick(scales, best), _pick(zeros, best)
    if flat.any():
        covering = minmax_grid(rows, bits, per_channel=True)
        scale = torch.where(flat, covering.scale, scale)
        zero = torch.where(flat, covering.zero, zero)
    return _shaped(scale, zero, torch.where(flat, 0, best), per_channel)


def symmetric_max_scale(x: Tensor, bits: int) -> Tensor:
    """0-d step 2 max|x| / (2^b - 1), or max|x| / (2^b - 1) if x has no negative value."""
    largest = x.abs().amax().double()
    width = torch.where(x.amin() < 0, 2 * largest, largest)
    return (width / (2**bits - 1)).clamp(min=SMALLEST_SCALE).to(x.dtype)


def symmetric_mse_scale(x: Tensor, bits: int, full_range: bool = False) -> Tensor:
    """0-d step of the symmetric grid, by the search of `mse_grid` over 80 shrunk maxima.

    Args:
        x: any shape.
        bits: b.
        full_range: the grid has the code -2^(b-1), too; the candidates are the same.
    """
    limit = symmetric_limit(bits)
    rows = _rows(x, per_channel=False)
    low, high = _extremes(rows)
    largest = torch.maximum(-low, high)
    scales = (largest * _shrink_factors(x) / limit).clamp(min=SMALLEST_SCALE)
    bound = torch.full_like(scales, limit)
    best = best_candidates(rows, scales, -bound - int(full_range), bound)
    return _pick(scales, best).squeeze(0)


def unsigned_mse_scale(x: Tensor, bits: int) -> Tensor:
    """0-d step of the grid 0 to 2^b - 1 with zero-point 0, by the search of `mse_grid`.

    Args:
        x: any shape, not negative.
        bits: b.
    """
    rows = _rows(x, per_channel=False)
    _, high = _extremes(rows)
    scales = (high * _shrink_factors(x) / (2**bits - 1)).clamp(min=SMALLEST_SCALE)
    bound = torch.full_like(scales, 2**bits - 1)
    best = best_candidates(rows, scales, torch.zeros_like(bound), bound)
    return _pick(scales, best).squeeze(0)


def _rows(x: Tensor, per_channel: bool) -> Tensor:
    if x.numel() == 0:
        raise BenchError("cannot choose a quantization grid from an empty tensor")
    return x.detach().reshape(len(x) if per_channel else 1, -1)


def _extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of every row, (channels, 1)."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise BenchError("cannot choose a quantization grid from data with NaN or infinite values")
    return low, high


def _shaped(scale: Tensor, zero: Tensor, best: Tensor | None, per_channel: bool) -> Grid:
    if per_channel:
        return Grid(scale, zero, best)
    return Grid(scale.squeeze(0), zero.squeeze(0), None if best is None else best.squeeze(0))


def _shrink_factors(x: Tensor) -> Tensor:
    steps = torch.arange(CANDIDATES, dtype=torch.float64, device=x.device)
    return (1 - 0.01 * steps).to(x.dtype)


def _pick(table: Tensor, best: Tensor) -> Tensor:
    return table.gather(1, best[:, None]).squeeze(1)
