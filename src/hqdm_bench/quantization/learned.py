"""A learned step size around a fixed zero-point (LSQ, Esser et al., ICLR 2020)."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.activation import ActivationQuantizer, Number
from hqdm_bench.quantization.functional import fake_quantize
from hqdm_bench.quantization.grid import mse_grid, symmetric_mse_scale, unsigned_mse_scale
from hqdm_bench.quantization.step import Row

__all__ = ["LearnedStep", "StepGradient", "UnsignedStep", "scale_gradient"]

StepGradient = Literal["plain", "lsq"]


class LearnedStep(ActivationQuantizer):
    """Grid with a trained step size and an integer zero-point that stays as it was calibrated.

    The zero-point keeps every value an integer times the step, unlike `AffineTable`'s.

    Args:
        bits: b, 3 to 8.
        steps: S; 1 makes one entry for all steps (Q-Diffusion, PTQD).
        symmetric: no zero-point; codes -2^(b-1) to 2^(b-1) - 1 (Q-Diffusion on bedrooms).
        gradient: of the step size: ``plain``, or ``lsq``, multiplied by 1 / sqrt(N Q) with N the
            values of an input a sample and Q the largest code.
    """

    zero: Tensor | None

    def __init__(
        self,
        bits: int,
        steps: int = 1,
        *,
        symmetric: bool = False,
        gradient: StepGradient = "plain",
    ) -> None:
        super().__init__(bits, steps)
        self.gradient = gradient
        self.scale = nn.Parameter(torch.full((steps,), math.nan))
        self.register_buffer("zero", None if symmetric else torch.full((steps,), math.nan))

    @property
    def limits(self) -> tuple[int, int]:
        """0 to 2^b - 1, or -2^(b-1) to 2^(b-1) - 1 without a zero-point."""
        if self.zero is None:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Mean-error search over its kind of grid."""
        if self.zero is None:
            self.initialise(symmetric_mse_scale(x, self.bits, full_range=True), step=step)
            return
        grid = mse_grid(x, self.bits, per_channel=False)
        self.initialise(grid.scale, grid.zero, step)

    def initialise(
        self, scale: Number, zero: Number | None = None, step: int | None = None
    ) -> None:
        """Store step size and zero-point; ``step`` is ignored where there is one entry."""
        super().initialise(scale, zero, None if self.steps == 1 else step)

    def forward(self, x: Tensor, row: Row, rotation: BlockRotation | None = None) -> Tensor:
        """Fake-quantize x with a row of the tables, within ``rotation`` if one is given."""
        scales, zeros, step = self._tables(row)
        if self.gradient == "lsq" and torch.is_grad_enabled():
            factor = (x[0].numel() * self.limits[1]) ** -0.5
            scales = scale_gradient(scales, factor)
        return fake_quantize(x, scales, zeros, step, self.limits, rotation)

    def _tables(self, row: Row) -> tuple[Tensor, Tensor | None, int]:
        return (self.scale, self.zero, 0) if self.steps == 1 else super()._tables(row)


class UnsignedStep(LearnedStep):
    """Codes 0 to 2^b - 1 around a zero-point of 0, for values that are never negative.

    Q-Diffusion's quantizer of the softmax's output (``always_zero`` in its code). The step is the
    magnitude of the trained number: at 8 bits a few updates can carry that through zero, and
    beyond it every value would be clipped to 0 and nothing learned any more.

    Args:
        bits: b, 3 to 8, or 16.
        steps: S; 1 makes one entry for all steps.
    """

    def __init__(self, bits: int, steps: int = 1) -> None:
        super().__init__(bits, steps, symmetric=True)  # which is to keep no zero-point

    @property
    def limits(self) -> tuple[int, int]:
        """0 to 2^b - 1."""
        return 0, 2**self.bits - 1

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Mean-error search over the largest value."""
        self.initialise(unsigned_mse_scale(x, self.bits), step=step)

    def _tables(self, row: Row) -> tuple[Tensor, Tensor | None, int]:
        scales, zeros, step = super()._tables(row)
        return scales.abs(), zeros, step


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Its argument; the gradient is multiplied by a factor."""
    scaled: Tensor = _ScaledGradient.apply(x, factor)
    return scaled


class _ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
