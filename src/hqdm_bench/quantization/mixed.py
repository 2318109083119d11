"""Weights whose output channels have different bits (MPQ-DM, Feng et al., AAAI 2025, 2412.11549).

Outlier-driven mixed quantization: within a layer the channels with the largest kurtosis get a bit
more and as many with the smallest a bit less, so that the mean stays.
"""

from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.grid import Grid
from hqdm_bench.quantization.weight import GridRule, StaticWeight, weight_grid

__all__ = ["MIXED_BITS", "MixedWeight", "channel_bits", "highest_codes", "kurtosis"]

MIXED_BITS = range(3, 8)  # a bit less and a bit more are still 2 to 8
SHARE = 10  # a tenth of the channels changes on either side, as released


def kurtosis(weight: Tensor) -> Tensor:
    """(c_out,) mean (w - mean w)^4 / s^4 of each output channel, s^2 being the unbiased variance.

    As released. Zero for a channel without variance.
    """
    rows = weight.detach().flatten(1)
    fourth = (rows - rows.mean(1, keepdim=True)).pow(4).mean(1)
    variance = rows.var(1) if rows.shape[1] > 1 else torch.zeros_like(fourth)
    return torch.where(variance > 0, fourth / variance.square(), 0.0)


def channel_bits(weight: Tensor, bits: int, rule: GridRule = "max") -> Tensor:
    """(c_out,) uint8 bits of each output channel, b on average.

    The released code compares two allocations, all channels alike and a tenth at either end of the
    kurtosis changed, by the error of a batch's output. This one compares the squared errors of the
    weight, for there is no batch when a student is built; of equals the first wins.

    Args:
        weight: (c_out, c_in, ...).
        bits: b, 3 to 7.
        rule: of the grids.

    Raises:
        BenchError: other bits.
    """
    if bits not in MIXED_BITS:
        raise BenchError(
            f"{bits} bits cannot be mixed; {MIXED_BITS[0]} to {MIXED_BITS[-1]} can, for which a "
            "bit less and a bit more exist"
        )
    even = torch.full((len(weight),), bits, dtype=torch.uint8, device=weight.device)
    count = len(weight) // SHARE
    order = kurtosis(weight).argsort(stable=True)
    mixed = even.clone()
    mixed[order[:count]] -= 1
    mixed[order[len(order) - count :]] += 1
    return min((even, mixed), key=lambda widths: _error(weight, widths, bits, rule))


def highest_codes(widths: Tensor, dims: int) -> Tensor:
    """2^b - 1 of each channel, int32 shaped (c_out, 1, ...) with this number of axes."""
    return (2 ** widths.to(torch.int32) - 1).view(-1, *[1] * (dims - 1))


class MixedWeight(StaticWeight):
    """`StaticWeight` of a grid a channel, with as many codes as the channel has bits.

    Args:
        codes: (c_out, c_in, ...) uint8.
        grid: scale and zero-point shaped (c_out, 1, ...).
        bits: b, the mean.
        widths: (c_out,) uint8 bits of the channels, 2 to 8.
    """

    channel_bits: Tensor

    def __init__(self, codes: Tensor, grid: Grid, bits: int, widths: Tensor) -> None:
        super().__init__(codes, grid, bits)
        self.register_buffer("channel_bits", widths)

    @classmethod
    def from_float(
        cls, weight: Tensor, bits: int, rule: GridRule = "max", *, per_channel: bool = True
    ) -> Self:
        """Choose the bits of the channels, and round to nearest.

        Raises:
            BenchError: bits that cannot be mixed, or one grid for all channels.
        """
        if not per_channel:
            raise BenchError(
                "channels with different bits need grids of their own; take one a channel"
            )
        widths = channel_bits(weight, bits, rule)
        made = cls(
            torch.zeros_like(weight, dtype=torch.uint8),
            _grid(weight, widths, rule),
            bits,
            widths,
        )
        made.round(weight)
        return made

    @property
    def levels(self) -> Tensor:
        """Highest code of each channel, shaped (c_out, 1, ...)."""
        return highest_codes(self.channel_bits, self.codes.dim())

    @property
    def code_bits(self) -> int:
        """Bits of the widest channel."""
        return int(self.channel_bits.max())

    def _grid(self, weight: Tensor, rule: GridRule, per_channel: bool) -> Grid:
        """Channels keep their bits, and grids of their own."""
        return _grid(weight, self.channel_bits, rule)


def _grid(weight: Tensor, widths: Tensor, rule: GridRule) -> Grid:
    shape = (-1, *[1] * (weight.dim() - 1))
    scale, zero = weight.new_empty(len(weight)), weight.new_empty(len(weight))
    for chosen, part, bits in _by_width(weight, widths):
        found = weight_grid(part, bits, rule)
        scale[chosen], zero[chosen] = found.scale.flatten(), found.zero.flatten()
    return Grid(scale.view(shape), zero.view(shape))


def _by_width(weight: Tensor, widths: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
    for bits in widths.unique().tolist():
        chosen = (widths == bits).nonzero().flatten()
        yield chosen, weight.detach()[chosen], bits


def _error(weight: Tensor, widths: Tensor, bits: int, rule: GridRule) -> float:
    made = MixedWeight(
        torch.zeros_like(weight, dtype=torch.uint8), _grid(weight, widths, rule), bits, widths
    )
    made.round(weight)
    return float((made() - weight.detach()).double().square().sum())
