"""Full-precision weights that are trained behind their quantizer.

Two kinds. LSQ (Esser et al., ICLR 2020) rounds to nearest and trains the step size, too. QuEST
(as released) starts from AdaRound: the side that each weight rounds to, the step size and the
zero-point are fixed, and the weight is trained through an STE floor.
"""

from typing import Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.grid import Grid, check_weight_bits
from hqdm_bench.quantization.learned import StepGradient, scale_gradient
from hqdm_bench.quantization.mixed import MixedWeight, highest_codes
from hqdm_bench.quantization.reference import clip
from hqdm_bench.quantization.step import Row
from hqdm_bench.quantization.symmetric_grid import symmetric_weight_grid
from hqdm_bench.quantization.weight import GridRule, StaticWeight, weight_grid

__all__ = ["TrainedWeight", "rounding_sides", "straight_through"]


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """A value, exactly, with the gradient of x."""
    return value.detach() + (x - x.detach())


def rounding_sides(weight: Tensor, static: StaticWeight) -> Tensor:
    """The side that every weight was rounded to: 1 up, 0 down, uint8.

    A code at the end of the grid may come from both sides; then the nearer one is taken.

    Args:
        weight: float weight W.
        static: codes of W on a grid, each next to W / delta.

    Raises:
        BenchError: the shapes differ, or a code is not of this weight.
    """
    if weight.shape != static.shape:
        raise BenchError(
            f"codes of shape {tuple(static.shape)} are not those of a weight of shape "
            f"{tuple(weight.shape)}; give the weight the layer was quantized from"
        )
    scaled = weight.detach() / static.scale
    down = scaled.floor() + static.zero
    codes = static.codes.to(down.dtype)
    from_down, from_up = (
        each.clamp(min=0).clamp(max=static.levels) == codes for each in (down, down + 1)
    )
    if not bool((from_down | from_up).all()):
        raise BenchError(
            "the codes are not those of this weight, rounded up or down; give the weight the "
            "layer was quantized from"
        )
    nearer_up = scaled - scaled.floor() >= 0.5
    return torch.where(from_down & from_up, nearer_up, from_up).to(torch.uint8)


class TrainedWeight(nn.Module):
    """W_hat = (clip(r(W / delta) + z, 0, 2^b - 1) - z) * delta with a trained float W.

    Without sides r rounds to nearest and delta is trained; its gradient is multiplied by
    1 / sqrt(N Q), N weights a step size and Q the largest code, or 2^(b-1) - 1 where the grid is
    symmetric around z (LSQ, Section 2.2). With sides r is floor plus side, and delta is fixed.
    Gradients pass rounding and floor as they are, and stop where the code is clipped.

    Args:
        weight: (c_out, c_in, ...) float weight W.
        grid: scale and zero-point shaped (c_out, 1, ...).
        bits: b, 2 to 8, or 16.
        sides: uint8 like the weight, see `rounding_sides`; None rounds to nearest.
        per_channel: a step size for each output channel; otherwise one, that of the first.
        symmetric: whether z is the middle of the codes, 2^(b-1).
        gradient: of the step sizes, ``lsq`` or ``plain`` without the factor.
        widths: (c_out,) bits of the channels where they differ, see `MixedWeight`.
    """

    scale: Tensor
    zero: Tensor
    sides: Tensor | None
    channel_bits: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        grid: Grid,
        bits: int,
        sides: Tensor | None = None,
        *,
        per_channel: bool = True,
        symmetric: bool = False,
        gradient: StepGradient = "lsq",
        widths: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.bits = check_weight_bits(bits)
        self.steps: int | None = None
        self.per_channel = per_channel
        self.symmetric = symmetric
        self.gradient = gradient
        self.weight = nn.Parameter(weight.detach().clone())
        scale = (grid.scale if per_channel else grid.scale[:1]).detach()
        scale = scale.clone(memory_format=torch.contiguous_format)  # a grid may be expanded
        if sides is None:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)
        self.register_buffer("zero", grid.zero.detach().clone())
        self.register_buffer("sides", sides)
        self.register_buffer("channel_bits", widths)

    @classmethod
    def from_float(
        cls,
        weight: Tensor,
        bits: int,
        rule: GridRule = "mse",
        *,
        per_channel: bool = True,
        symmetric: bool = False,
        gradient: StepGradient = "lsq",
    ) -> Self:
        """LSQ's kind, on a grid that is searched.

        Args:
            weight: (c_out, c_in, ...).
            bits: b.
            rule: "max" covers the range, "mse" searches it.
            per_channel: one grid an output channel; otherwise the same for all.
            symmetric: codes -2^(b-1) to 2^(b-1) - 1 around zero instead of a zero-point.
            gradient: of the step sizes.
        """
        search = symmetric_weight_grid if symmetric else weight_grid
        grid = search(weight, bits, rule, per_channel=per_channel)
        return cls(
            weight, grid, bits, per_channel=per_channel, symmetric=symmetric, gradient=gradient
        )

    @classmethod
    def from_grid(
        cls,
        weight: Tensor,
        static: StaticWeight,
        *,
        per_channel: bool = True,
        gradient: StepGradient = "lsq",
    ) -> Self:
        """LSQ's kind, on the grid that a layer has already.

        Args:
            weight: (c_out, c_in, ...).
            static: the layer's weight; its codes do not count.
            per_channel: a step size for each output channel; otherwise the first for all.
            gradient: of the step sizes.
        """
        grid = Grid(static.scale, static.zero)
        return cls(
            weight,
            grid,
            static.bits,
            per_channel=per_channel,
            gradient=gradient,
            widths=_widths(static),
        )

    @classmethod
    def from_static(cls, weight: Tensor, static: StaticWeight) -> Self:
        """QuEST's kind: a float weight that was rounded already, nearest or as was learned.

        Args:
            weight: what was rounded.
            static: the result.

        Raises:
            BenchError: the codes are not of this weight.
        """
        sides = rounding_sides(weight, static)
        grid = Grid(static.scale, static.zero)
        return cls(weight, grid, static.bits, sides, widths=_widths(static))

    @property
    def shape(self) -> torch.Size:
        """(c_out, c_in, ...)."""
        return self.weight.shape

    @torch.no_grad()
    def effective_codes(self, row: Row = 0) -> Tensor:
        """Integer codes 0..2^b - 1, shaped like the weight; the same at every step."""
        return self._codes(self.scale).to(torch.uint8 if self.bits <= 8 else torch.int32)

    def forward(self, row: Row = 0) -> Tensor:
        """The quantized weight; the same at every step."""
        scale = self.scale
        if self.sides is None and self.gradient == "lsq" and torch.is_grad_enabled():
            count = self.weight.numel() // scale.numel()
            scale = scale_gradient(scale, (count * self._largest) ** -0.5)
        return (self._codes(scale) - self.zero) * scale

    def commit(self) -> StaticWeight:
        """The weight as it is quantized now, without what it was made from."""
        grid = Grid(self.scale.detach().expand_as(self.zero), self.zero)
        codes = self.effective_codes()
        if self.channel_bits is None:
            return StaticWeight(codes, grid, self.bits)
        return MixedWeight(codes, grid, self.bits, self.channel_bits)

    def _codes(self, scale: Tensor) -> Tensor:
        scaled = self.weight / scale
        if self.sides is None:
            rounded = straight_through(scaled, scaled.round())
        else:
            rounded = straight_through(scaled, scaled.floor() + self.sides)
        return clip(rounded + self.zero, 0, self._levels)

    @property
    def _levels(self) -> int | Tensor:
        if self.channel_bits is None:
            return int(2**self.bits - 1)
        return highest_codes(self.channel_bits, self.weight.dim())

    @property
    def _largest(self) -> int:
        """Q."""
        return int(2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1)

    def extra_repr(self) -> str:
        """Shown by print()."""
        kind = "nearest" if self.sides is None else "sides"
        return f"{tuple(self.shape)}, bits={self.bits}, rounding={kind}"


def _widths(static: StaticWeight) -> Tensor | None:
    return static.channel_bits if isinstance(static, MixedWeight) else None
