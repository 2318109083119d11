"""Symmetric grids, channel by channel: codes -2^(b-1) to 2^(b-1) - 1 around zero, as in LSQ."""

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.grid import CANDIDATES, SMALLEST_SCALE, Grid
from hqdm_bench.quantization.search import best_candidates

__all__ = ["symmetric_channel_grid", "symmetric_weight_grid"]


def symmetric_channel_grid(channels: Tensor, bits: int, rule: str = "max") -> Grid:
    """Grid (c,) of each channel, with the middle of the codes, 2^(b-1), as zero-point.

    Args:
        channels: (c, n) data.
        bits: b.
        rule: "max" takes the step max|x| / (2^(b-1) - 1); "mse" the first of 80 that shrink it by
            1 - 0.01 i with the least mean |x - x_hat|^2.4.

    Raises:
        BenchError: an unknown rule, or data with NaN or infinite values.
    """
    if rule not in ("max", "mse"):
        raise BenchError(f"weight grid rule '{rule}' is unknown; choose one of ['max', 'mse']")
    rows, half = channels.detach(), 2 ** (bits - 1)
    largest = rows.abs().amax(1, keepdim=True)
    if not bool(largest.isfinite().all()):
        raise BenchError("cannot choose a quantization grid from data with NaN or infinite values")
    scale = (largest / (half - 1)).clamp(min=SMALLEST_SCALE)
    if rule == "mse":
        shrink = 1 - 0.01 * torch.arange(CANDIDATES, dtype=torch.float64, device=rows.device)
        candidates = (scale * shrink.to(scale)).clamp(min=SMALLEST_SCALE)
        high = torch.full_like(candidates, half - 1)
        best = best_candidates(rows, candidates, torch.full_like(candidates, -half), high)
        scale = candidates.gather(1, best[:, None])
    scale = scale.squeeze(1)
    return Grid(scale, torch.full_like(scale, half))


def symmetric_weight_grid(
    weight: Tensor, bits: int, rule: str = "max", *, per_channel: bool = True
) -> Grid:
    """Grid of a weight, shaped (c_out, 1, ...), by `symmetric_channel_grid`.

    Args:
        weight: (c_out, c_in, ...).
        bits: b.
        rule: "max" or "mse".
        per_channel: one step an output channel; otherwise the same for all.

    Raises:
        BenchError: an unknown rule, or a weight with NaN or infinite values.
    """
    rows = weight.reshape(len(weight) if per_channel else 1, -1)
    grid = symmetric_channel_grid(rows, bits, rule)
    return Grid(grid.scale.expand(len(weight)), grid.zero.expand(len(weight))).for_weight(weight)
