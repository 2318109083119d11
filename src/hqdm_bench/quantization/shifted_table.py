"""Activation quantizer whose step size differs by powers of two between channels (DMQ)."""

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.activation import AffineTable
from hqdm_bench.quantization.power_of_two import AGREEMENT, power_of_two_factors
from hqdm_bench.quantization.step import Blend, Row

__all__ = ["ShiftedTable"]


class ShiftedTable(AffineTable):
    """x_hat = (clip(round(x / (2^-k s)) + z, 0, 2^b - 1) - z) 2^-k s with a k for each channel.

    The factors are stored for every step, as released. On integers they are shifts of the weight's
    channels, so the inner product stays one of integers.

    Args:
        bits: b, 3 to 8.
        steps: S.
        channels: of the input.
        axis: of the channels in the input: -1 for a Linear, 1 for a convolution.
    """

    factors: Tensor

    def __init__(self, bits: int, steps: int, channels: int, axis: int = 1) -> None:
        super().__init__(bits, steps, integer_zero=True)
        self.axis = axis
        self.register_buffer("factors", torch.ones(steps, channels))

    @torch.no_grad()
    def choose_factors(self, x: Tensor, step: int, agreement: float = AGREEMENT) -> None:
        """Vote on the factors of a step, whose scale and zero-point are set.

        Args:
            x: (N, ...) inputs of that step; every one of the N has a vote.
            step: row.
            agreement: share of the votes that the winner needs.

        Raises:
            BenchError: the row has no scale yet.
        """
        assert self.zero is not None
        scale, zero = self.scale[step], self.zero[step]
        if not bool(torch.isfinite(scale)):
            raise BenchError(
                f"row {step} has no step size yet; calibrate it before its power-of-two factors"
            )
        self.factors[step] = power_of_two_factors(
            x, scale, zero.round(), self.bits, self.axis, agreement
        )

    def forget(self) -> None:
        """Make every entry NaN and every factor 1 again."""
        super().forget()
        self.factors.fill_(1)

    def forward(self, x: Tensor, row: Row, rotation: BlockRotation | None = None) -> Tensor:
        """Fake-quantize x with a row of the tables.

        Raises:
            BenchError: between two rows, or within a rotation, where the channels are mixed.
        """
        if isinstance(row, Blend) or rotation is not None:
            raise BenchError(
                "power-of-two factors belong to a step and to a channel; sample at the table's own "
                "timesteps, without a rotation"
            )
        factors = self.factors[row].to(x)
        if self.axis != -1:
            factors = factors.view(-1, *[1] * (x.dim() - 2))
        # Exact: dividing by a power of two and multiplying by it again rounds nothing.
        return super().forward(x / factors, row) * factors
