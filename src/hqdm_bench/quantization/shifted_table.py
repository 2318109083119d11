"""Activation quantizer whose step size differs by powers of two between channels (DMQ)."""

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.learned import LearnedStep
from hqdm_bench.quantization.power_of_two import AGREEMENT, best_exponents, vote
from hqdm_bench.quantization.step import Blend, Row

__all__ = ["ShiftedTable"]


class ShiftedTable(LearnedStep):
    """x_hat = (clip(round(x / (2^-k s)) + z, low, high) - z) 2^-k s with a k for each channel.

    On integers the factors are shifts of the weight's channels, so the inner product stays one of
    integers.

    Args:
        bits: b, 3 to 8.
        steps: S; 1 makes one entry for all steps.
        channels: of the input.
        axis: of the channels in the input: -1 for a Linear, 1 for a convolution.
        symmetric: see `LearnedStep`.
        shared: one set of factors for all steps; otherwise one for each, as released.
    """

    factors: Tensor

    def __init__(
        self,
        bits: int,
        steps: int,
        channels: int,
        axis: int = 1,
        *,
        symmetric: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__(bits, steps, symmetric=symmetric)
        self.axis = axis
        self.register_buffer("factors", torch.ones(1 if shared else steps, channels))

    @property
    def factor_rows(self) -> int:
        """1 if all steps share their factors."""
        return len(self.factors)

    def preferences(self, x: Tensor, row: int) -> Tensor:
        """(N, C) int64: the k of the least error for each sample and channel.

        Args:
            x: (N, ...) inputs at a step whose scale and zero-point are set.
            row: of the tables.

        Raises:
            BenchError: the row has no scale yet.
        """
        scales, zeros, entry = self._tables(row)
        scale = scales[entry].detach()
        if not bool(torch.isfinite(scale)):
            raise BenchError(
                f"row {row} has no step size yet; calibrate it before its power-of-two factors"
            )
        zero = torch.zeros_like(scale) if zeros is None else zeros[entry]
        return best_exponents(x, scale, zero, self.limits, self.axis)

    @torch.no_grad()
    def choose_factors(self, chosen: Tensor, row: int, agreement: float = AGREEMENT) -> None:
        """Set the factors of a step, or of all if they are shared, by vote.

        Args:
            chosen: (N, C) of `preferences`; every one of the N has a vote.
            row: of the tables.
            agreement: share of the votes that the winner needs.
        """
        factors = torch.exp2(-vote(chosen, agreement).to(self.factors))
        self.factors[self._factor_row(row)] = factors

    def forget(self) -> None:
        """Make every entry NaN and every factor 1 again."""
        super().forget()
        self.factors.fill_(1)

    def forward(self, x: Tensor, row: Row, rotation: BlockRotation | None = None) -> Tensor:
        """Fake-quantize x with a row of the tables; between two rows, the factors of the nearer.

        Raises:
            BenchError: within a rotation, where the channels are mixed.
        """
        if rotation is not None:
            raise BenchError(
                "power-of-two factors belong to a channel, and a rotation mixes channels; quantize "
                "without one"
            )
        factors = self.factors[self._factor_row(row)].to(x)
        if self.axis != -1:
            factors = factors.view(-1, *[1] * (x.dim() - 2))
        # Exact: dividing by a power of two and multiplying by it again rounds nothing.
        return super().forward(x / factors, row) * factors

    def _factor_row(self, row: Row) -> int:
        nearer = row.row + (row.share > 0.5) if isinstance(row, Blend) else row
        return nearer if self.factor_rows > 1 else 0
