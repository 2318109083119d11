"""Activation quantizers: per tensor, fixed or with one learned entry a denoising step."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.functional import fake_quantize
from hqdm_bench.quantization.grid import (
    check_activation_bits,
    mse_grid,
    symmetric_limit,
    symmetric_mse_scale,
)
from hqdm_bench.quantization.reference import round_straight_through
from hqdm_bench.quantization.step import Blend, Row, row_of

__all__ = ["ActivationQuantizer", "AffineStatic", "AffineTable", "SymmetricTable"]

Number = float | Tensor


class ActivationQuantizer(nn.Module):
    """Base of the quantizers of inputs.

    Entries are NaN until `initialise` or `calibrate` sets them, and using a NaN entry is an error.

    Args:
        bits: b, 3 to 8.
        steps: rows S of the tables.
    """

    scale: Tensor
    zero: Tensor | None

    def __init__(self, bits: int, steps: int) -> None:
        super().__init__()
        self.bits = check_activation_bits(bits)
        self.steps = steps

    @property
    @abstractmethod
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code."""

    @abstractmethod
    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Search the grid of x and store it.

        Args:
            x: inputs as the quantizer sees them, rotated if the layer rotates.
            step: row to set, or None for all rows.
        """

    def initialise(
        self, scale: Number, zero: Number | None = None, step: int | None = None
    ) -> None:
        """Store a step size, and a zero-point if this quantizer has one (0 if not given).

        Args:
            scale: a number, or (S,) for all rows when ``step`` is None.
            zero: likewise; ignored by the symmetric quantizer.
            step: row to set, or None for all rows.
        """
        rows = slice(None) if step is None else slice(step, step + 1)
        with torch.no_grad():
            self.scale[rows] = _like(scale, self.scale)
            if self.zero is not None:
                self.zero[rows] = _like(0.0 if zero is None else zero, self.zero)

    def forget(self) -> None:
        """Make every entry NaN again."""
        with torch.no_grad():
            for table in (self.scale, self.zero):
                if table is not None:
                    table.fill_(math.nan)

    def untrained(self) -> dict[str, Tensor]:
        """Buffers, and parameters that training leaves alone, by name; not copied."""
        fixed = {key: value for key, value in self.named_parameters() if not value.requires_grad}
        return dict(self.named_buffers()) | fixed

    @property
    def calibrated(self) -> bool:
        """Whether every entry is set."""
        tables = [self.scale] if self.zero is None else [self.scale, self.zero]
        return all(bool(torch.isfinite(table).all()) for table in tables)

    def forward(self, x: Tensor, row: Row, rotation: BlockRotation | None = None) -> Tensor:
        """Fake-quantize x with a row of the tables, within ``rotation`` if one is given.

        Returns:
            x_hat, shaped like x, in the same coordinates as x.
        """
        scales, zeros, step = self._tables(row)
        return fake_quantize(x, scales, zeros, step, self.limits, rotation)

    def _tables(self, row: Row) -> tuple[Tensor, Tensor | None, int]:
        """Scales, zero-points, and the entry of both that belongs to ``row``."""
        if isinstance(row, Blend):
            zero = None if self.zero is None else row_of(self.zero, row).view(1)
            return row_of(self.scale, row).view(1), zero, 0
        return self.scale, self.zero, row

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"bits={self.bits}, steps={self.steps}"


class AffineStatic(ActivationQuantizer):
    """Asymmetric grid with one fixed scale and zero-point for all steps; nothing is learned.

    Args:
        bits: b, 3 to 8.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(bits, steps=1)
        self.register_buffer("scale", torch.full((1,), math.nan))
        self.register_buffer("zero", torch.full((1,), math.nan))

    @property
    def limits(self) -> tuple[int, int]:
        """0 to 2^b - 1."""
        return 0, 2**self.bits - 1

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Mean-error search; ``step`` is ignored, there is one entry."""
        grid = mse_grid(x, self.bits, per_channel=False)
        self.initialise(grid.scale, grid.zero)

    def initialise(
        self, scale: Number, zero: Number | None = None, step: int | None = None
    ) -> None:
        """Store scale and zero-point; ``step`` is ignored, there is one entry."""
        super().initialise(scale, zero)

    def _tables(self, row: Row) -> tuple[Tensor, Tensor | None, int]:
        return self.scale, self.zero, 0


class AffineTable(ActivationQuantizer):
    """Asymmetric grid with a learned scale and real zero-point a step (EfficientDM, TALSQ).

    Each table is one parameter vector, as released: Adam also moves the rows without a gradient,
    through their momentum.

    Args:
        bits: b, 3 to 8.
        steps: S.
        integer_zero: round the zero-points where they are used (straight through), so that every
            value of the grid is an integer times the scale. A trained zero-point is a real number
            in EfficientDM, whose clipped values are on no integer grid.
    """

    def __init__(self, bits: int, steps: int, *, integer_zero: bool = False) -> None:
        super().__init__(bits, steps)
        self.integer_zero = integer_zero
        self.scale = nn.Parameter(torch.full((steps,), math.nan))
        self.zero = nn.Parameter(torch.full((steps,), math.nan))

    @property
    def limits(self) -> tuple[int, int]:
        """0 to 2^b - 1."""
        return 0, 2**self.bits - 1

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Mean-error search over asymmetric grids."""
        grid = mse_grid(x, self.bits, per_channel=False)
        self.initialise(grid.scale, grid.zero, step)

    def _tables(self, row: Row) -> tuple[Tensor, Tensor | None, int]:
        scales, zeros, step = super()._tables(row)
        if self.integer_zero and zeros is not None:
            zeros = round_straight_through(zeros)
        return scales, zeros, step


class SymmetricTable(ActivationQuantizer):
    """Symmetric grid without a zero-point, with a learned scale a step (HQ-DM, Eq. 8).

    Args:
        bits: b, 3 to 8.
        steps: S.
        full_range: use the code -2^(b-1), as HQ-DM's text has it; the released code does not.
    """

    def __init__(self, bits: int, steps: int, *, full_range: bool = False) -> None:
        super().__init__(bits, steps)
        self.full_range = full_range
        self.scale = nn.Parameter(torch.full((steps,), math.nan))
        self.zero = None

    @property
    def limits(self) -> tuple[int, int]:
        """-(2^(b-1) - 1) to 2^(b-1) - 1, or one lower."""
        largest = symmetric_limit(self.bits)
        return -largest - self.full_range, largest

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Mean-error search over symmetric grids."""
        self.initialise(symmetric_mse_scale(x, self.bits, self.full_range), step=step)


def _like(value: Number, table: Tensor) -> Tensor:
    value = torch.as_tensor(value, dtype=table.dtype, device=table.device).detach()
    if value.numel() not in (1, len(table)):
        raise BenchError(f"got {value.numel()} values for a table of {len(table)} steps")
    return value.reshape(-1)
