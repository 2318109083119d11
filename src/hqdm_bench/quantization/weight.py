"""Grids of weights, and weights that are quantized once."""

from typing import Literal, Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.grid import Grid, check_weight_bits, minmax_grid, mse_grid
from hqdm_bench.quantization.step import Row

__all__ = ["GridRule", "StaticWeight", "code_type", "encode", "weight_grid"]

GridRule = Literal["max", "mse"]


def weight_grid(
    weight: Tensor, bits: int, rule: GridRule = "max", *, per_channel: bool = True
) -> Grid:
    """Grid of a weight, shaped (c_out, 1, ...).

    Args:
        weight: (c_out, c_in, ...).
        bits: b, 2 to 8.
        rule: "max" covers the range, "mse" searches it.
        per_channel: one grid an output channel; otherwise the same for all (PTQD as released).
    """
    search = {"max": minmax_grid, "mse": mse_grid}
    if rule not in search:
        raise BenchError(f"weight grid rule '{rule}' is unknown; choose one of {sorted(search)}")
    grid = search[rule](weight.detach(), check_weight_bits(bits), per_channel=per_channel)
    if not per_channel:
        grid = Grid(grid.scale.expand(len(weight)), grid.zero.expand(len(weight)))
    return grid.for_weight(weight)


def encode(weight: Tensor, grid: Grid, bits: int, levels: int | Tensor | None = None) -> Tensor:
    """Nearest codes from 0 to 2^b - 1, or to the given ones, uint8 or int32 above 8 bits.

    Args:
        weight: (c_out, c_in, ...).
        grid: scale and zero-point shaped (c_out, 1, ...).
        bits: b.
        levels: highest code, to broadcast over the weight.
    """
    highest = 2**bits - 1 if levels is None else levels
    codes = (weight.detach() / grid.scale).round_().add_(grid.zero)
    return codes.clamp_(min=0).clamp_(max=highest).to(code_type(bits))


def code_type(bits: int) -> torch.dtype:
    """What holds codes of b bits."""
    return torch.uint8 if bits <= 8 else torch.int32


class StaticWeight(nn.Module):
    """Weight fake-quantized once from the float weight; buffers only, nothing is trained.

    Args:
        codes: (c_out, c_in, ...) uint8, int32 above 8 bits.
        grid: scale and zero-point shaped (c_out, 1, ...).
        bits: b, 2 to 8.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor

    def __init__(self, codes: Tensor, grid: Grid, bits: int) -> None:
        super().__init__()
        self.bits = check_weight_bits(bits)
        self.steps: int | None = None
        self.register_buffer("codes", codes)
        self.register_buffer("scale", grid.scale.detach().clone())
        self.register_buffer("zero", grid.zero.detach().clone())

    @classmethod
    def from_float(
        cls, weight: Tensor, bits: int, rule: GridRule = "max", *, per_channel: bool = True
    ) -> Self:
        """Quantize a float weight to nearest, on a grid of `weight_grid`."""
        grid = weight_grid(weight, bits, rule, per_channel=per_channel)
        return cls(encode(weight, grid, bits), grid, bits)

    @torch.no_grad()
    def requantize(
        self, weight: Tensor, rule: GridRule = "max", *, per_channel: bool = True
    ) -> None:
        """Take another float weight of the same shape, in place; arguments as in `from_float`."""
        grid = self._grid(weight, rule, per_channel)
        self.scale.copy_(grid.scale)
        self.zero.copy_(grid.zero)
        self.round(weight)

    @torch.no_grad()
    def round(self, weight: Tensor) -> None:
        """Take another float weight of the same shape on the grid that is there, in place."""
        grid = Grid(self.scale, self.zero)
        self.codes.copy_(encode(weight, grid, self.bits, self.levels))

    def _grid(self, weight: Tensor, rule: GridRule, per_channel: bool) -> Grid:
        return weight_grid(weight, self.bits, rule, per_channel=per_channel)

    @property
    def levels(self) -> int | Tensor:
        """Highest code, 2^b - 1; a tensor to broadcast over the weight where channels differ."""
        return int(2**self.bits - 1)

    @property
    def code_bits(self) -> int:
        """Bits that hold every code."""
        return self.bits

    @property
    def shape(self) -> torch.Size:
        """(c_out, c_in, ...)."""
        return self.codes.shape

    def effective_codes(self, row: Row = 0) -> Tensor:
        """Integer codes 0..2^b - 1, shaped like the weight; the same at every step."""
        return self.codes

    def forward(self, row: Row = 0) -> Tensor:
        """The fixed weight (codes - z) * delta."""
        return (self.codes.to(self.scale.dtype) - self.zero) * self.scale
