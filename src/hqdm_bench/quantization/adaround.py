"""AdaRound: weights whose rounding, up or down, is learned (Nagel et al., ICML 2020).

Every weight becomes floor(W / delta) + h(V) with one trained number V and h a sigmoid stretched to
(gamma, zeta) and clipped to [0, 1]. A penalty drives h to 0 or 1, and `AdaRoundWeight.commit` takes
the side. BRECQ, Q-Diffusion, PTQD, TFMQ-DM and DMQ use it as written here.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.grid import Grid, check_weight_bits
from hqdm_bench.quantization.mixed import MixedWeight, highest_codes
from hqdm_bench.quantization.reference import clip
from hqdm_bench.quantization.step import Row
from hqdm_bench.quantization.weight import GridRule, StaticWeight, weight_grid

__all__ = [
    "GAMMA",
    "ZETA",
    "AdaRoundWeight",
    "BetaSchedule",
    "rectified_sigmoid",
    "rounding_penalty",
    "rounding_start",
]

ZETA, GAMMA = 1.1, -0.1


def rectified_sigmoid(v: Tensor) -> Tensor:
    """h(V) = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1), Eq. 23 of AdaRound."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def rounding_start(fraction: Tensor) -> Tensor:
    """V with h(V) = fraction.

    Args:
        fraction: of any shape, 0 to 1: what flooring takes off.
    """
    return -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)


def rounding_penalty(h: Tensor, beta: float) -> Tensor:
    """0-d sum of 1 - |2 h - 1|^beta, Eq. 24 of AdaRound: zero where every h is 0 or 1."""
    return (1 - (2 * h - 1).abs().pow(beta)).sum()


@dataclass(frozen=True)
class BetaSchedule:
    """Exponent of the penalty: none during a warm-up, then linear from ``first`` to ``last``.

    Attributes:
        updates: T, at which beta is ``last``.
        first: beta until the warm-up ends; a large one leaves all but the extremes free.
        last: beta at update T.
        warm_up: share of the updates without a penalty.
    """

    updates: int
    first: float = 20.0
    last: float = 2.0
    warm_up: float = 0.2

    def at(self, update: int) -> float | None:
        """Beta of an update, counted from 1; None as long as there is no penalty."""
        start = self.warm_up * self.updates
        if update < start:
            return None
        rest = 1 - (update - start) / max(1e-12, self.updates - start)
        return self.last + (self.first - self.last) * min(1.0, max(0.0, rest))


class AdaRoundWeight(nn.Module):
    """W_hat = (clip(floor(W / delta) + h(V) + z, 0, 2^b - 1) - z) * delta on a frozen grid.

    Takes the place of a layer's `StaticWeight` while its rounding is learned. With h soft, the
    weight starts as W itself, but for what the grid clips.

    Args:
        weight: (c_out, c_in, ...) float weight W.
        grid: scale and zero-point shaped (c_out, 1, ...).
        bits: b, 2 to 8.
        widths: (c_out,) bits of the channels where they differ, see `MixedWeight`.

    Attributes:
        rounding: V, shaped like the weight.
        soft: whether `forward` uses h(V); otherwise its side, up where V >= 0.
    """

    floor: Tensor
    scale: Tensor
    zero: Tensor
    channel_bits: Tensor | None

    def __init__(self, weight: Tensor, grid: Grid, bits: int, widths: Tensor | None = None) -> None:
        super().__init__()
        self.bits = check_weight_bits(bits)
        self.steps: int | None = None
        self.soft = True
        weight = weight.detach()
        floor = (weight / grid.scale).floor()
        self.register_buffer("floor", floor.to(torch.int32))
        self.register_buffer("scale", grid.scale.detach().clone())
        self.register_buffer("zero", grid.zero.detach().clone())
        self.register_buffer("channel_bits", widths)
        self.rounding = nn.Parameter(rounding_start(weight / grid.scale - floor))

    @classmethod
    def from_float(cls, weight: Tensor, bits: int, rule: GridRule = "mse") -> Self:
        """Start from a float weight on a grid per output channel."""
        return cls(weight, weight_grid(weight, bits, rule), bits)

    @classmethod
    def from_static(cls, weight: Tensor, static: StaticWeight) -> Self:
        """Start from a float weight on the grid that a layer has already.

        Args:
            weight: shaped like the layer's.
            static: the layer's weight, rounded to nearest.

        Raises:
            BenchError: the shapes differ.
        """
        if weight.shape != static.shape:
            raise BenchError(
                f"a weight of shape {tuple(weight.shape)} cannot be rounded on the grid of one of "
                f"shape {tuple(static.shape)}; give the weight the layer was quantized from"
            )
        widths = static.channel_bits if isinstance(static, MixedWeight) else None
        return cls(weight, Grid(static.scale, static.zero), static.bits, widths)

    @property
    def shape(self) -> torch.Size:
        """(c_out, c_in, ...)."""
        return self.floor.shape

    def penalty(self, beta: float) -> Tensor:
        """`rounding_penalty` of this weight."""
        return rounding_penalty(rectified_sigmoid(self.rounding), beta)

    def effective_codes(self, row: Row = 0) -> Tensor:
        """Integer codes 0..2^b - 1 of the sides taken now, shaped like the weight."""
        up = (self.rounding.detach() >= 0).to(self.floor.dtype)
        codes = self.floor + up + self.zero.to(self.floor.dtype)
        codes = codes.clamp_(min=0).clamp_(max=self._levels)
        return codes.to(torch.uint8) if self.bits <= 8 else codes

    def forward(self, row: Row = 0) -> Tensor:
        """The weight, soft or hard; the same at every step."""
        if not self.soft:
            return (self.effective_codes(row).to(self.scale.dtype) - self.zero) * self.scale
        codes = self.floor + rectified_sigmoid(self.rounding) + self.zero
        return (clip(codes, 0, self._levels) - self.zero) * self.scale

    def commit(self) -> StaticWeight:
        """The weight with every side taken."""
        codes, grid = self.effective_codes(), Grid(self.scale, self.zero)
        if self.channel_bits is None:
            return StaticWeight(codes, grid, self.bits)
        return MixedWeight(codes, grid, self.bits, self.channel_bits)

    @property
    def _levels(self) -> int | Tensor:
        if self.channel_bits is None:
            return int(2**self.bits - 1)
        return highest_codes(self.channel_bits, self.floor.dim())

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"{tuple(self.shape)}, bits={self.bits}, soft={self.soft}"
