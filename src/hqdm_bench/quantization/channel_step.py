"""A learned step size and a zero-point for every input channel (QuEST as released, at 4 bits)."""

import math

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.activation import Number
from hqdm_bench.quantization.grid import mse_grid
from hqdm_bench.quantization.learned import LearnedStep
from hqdm_bench.quantization.reference import plain_fake_quantize
from hqdm_bench.quantization.step import Row, row_of
from hqdm_bench.quantization.symmetric_grid import symmetric_channel_grid

__all__ = ["ChannelStep"]


class ChannelStep(LearnedStep):
    """`LearnedStep` with tables (S, c_in): the step sizes are trained, with plain gradients.

    Integer inference cannot have it: the step sizes differ within the sum over the input channels,
    so they do not come out of it.

    The released code takes the last axis of every input with three axes for the channels, which is
    right for tokens and means the positions for a Conv1d; here they are the channels there, too.

    Args:
        bits: b, 3 to 8.
        steps: S; 1 makes one row for all steps.
        channels: c_in.
        linear: channels are the last axis of the input; otherwise the second.
        symmetric: no zero-points; codes -2^(b-1) to 2^(b-1) - 1.
    """

    def __init__(
        self, bits: int, steps: int, channels: int, *, linear: bool, symmetric: bool = False
    ) -> None:
        super().__init__(bits, steps, symmetric=symmetric)
        self.channels = channels
        self.linear = linear
        self.scale = nn.Parameter(torch.full((steps, channels), math.nan))
        if not symmetric:
            self.register_buffer("zero", torch.full((steps, channels), math.nan))

    def by_channel(self, x: Tensor) -> Tensor:
        """(n, c_in): what each channel of an input holds.

        Raises:
            BenchError: the input has other channels.
        """
        rows = x if self.linear else x.movedim(1, -1)
        if rows.shape[-1] != self.channels:
            raise BenchError(
                f"an input of shape {tuple(x.shape)} has not the {self.channels} channels that "
                "this quantizer has step sizes for"
            )
        return rows.reshape(-1, self.channels)

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Mean-error search, channel by channel; x may also be (n, c_in)."""
        channels = self.by_channel(x).t()
        if self.zero is None:
            grid = symmetric_channel_grid(channels, self.bits, "mse")
            self.initialise(grid.scale, step=step)
            return
        grid = mse_grid(channels, self.bits, per_channel=True)
        self.initialise(grid.scale, grid.zero, step)

    def initialise(
        self, scale: Number, zero: Number | None = None, step: int | None = None
    ) -> None:
        """Store step sizes and zero-points.

        Args:
            scale: a number, (c_in,), or (S, c_in) for all rows.
            zero: likewise.
            step: row to set, or None for all rows; ignored where there is one.
        """
        rows = slice(None) if step is None or self.steps == 1 else slice(step, step + 1)
        with torch.no_grad():
            self.scale[rows] = torch.as_tensor(scale).to(self.scale)
            if self.zero is not None:
                self.zero[rows] = torch.as_tensor(0.0 if zero is None else zero).to(self.zero)

    def forward(self, x: Tensor, row: Row, rotation: BlockRotation | None = None) -> Tensor:
        """Fake-quantize x with a row of the tables, within ``rotation`` if one is given.

        Raises:
            BenchError: the row is not calibrated, or training diverged; checked on the CPU.
        """
        row = 0 if self.steps == 1 else row
        scale = self._like(row_of(self.scale, row), x)
        zero = None if self.zero is None else self._like(row_of(self.zero, row), x)
        if scale.device.type == "cpu" and bool(scale.isnan().any()):
            raise BenchError(
                f"the activation quantizer is NaN at step {row}: calibrate the student before "
                "using it; if it was calibrated, training diverged, lower the learning rate"
            )
        seen = x if rotation is None else rotation(x)
        out = plain_fake_quantize(seen, scale, zero, *self.limits)
        return out if rotation is None else rotation.inverse(out)

    def _like(self, entries: Tensor, x: Tensor) -> Tensor:
        """(c_in,) shaped to broadcast over an input."""
        return entries if self.linear else entries.view(-1, *[1] * (x.dim() - 2))

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"bits={self.bits}, steps={self.steps}, channels={self.channels}"
