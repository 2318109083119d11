"""Which denoising step the student is at."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["Blend", "Row", "StepIndex", "Steps", "row_of"]

Steps = Literal["pick", "interpolate", "by_timestep"]


@dataclass(frozen=True)
class Blend:
    """A place between two rows of a table.

    Attributes:
        row: the lower row.
        share: of the row after it, in (0, 1).
    """

    row: int
    share: float


Row = int | Blend


def row_of(table: Tensor, row: Row) -> Tensor:
    """One row of a table (S, ...), a view; between two rows, their weighted mean."""
    if isinstance(row, Blend):
        return torch.lerp(table[row.row], table[row.row + 1], row.share)
    return table[row]


class StepIndex:
    """Row of the per-step tables for the timestep in use.

    One holder belongs to a student and all its layers refer to it. The row follows from the
    timestep that the student is told, not from counting calls, so an extra forward pass cannot
    shift it. Row 0 is the last denoising step (smallest timestep), row S-1 the first.

    Args:
        timesteps: the S timesteps of the sampler, strictly ascending, for example 1, 51, ..., 951.
        between: what a timestep without a row gets: the nearest row (``pick``; the lower of two as
            near), a mean of its neighbours (``interpolate``; the outermost rows reach on), or an
            error (``by_timestep``).
    """

    def __init__(self, timesteps: Sequence[int], between: Steps = "by_timestep") -> None:
        self.timesteps = tuple(int(t) for t in timesteps)
        self.between = between
        if not self.timesteps or any(
            a >= b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False)
        ):
            raise BenchError(f"timesteps must be strictly ascending, got {list(self.timesteps)}")
        self._rows = {t: row for row, t in enumerate(self.timesteps)}
        self._row: Row | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def set(self, t: float) -> None:
        """Move to timestep t.

        Raises:
            BenchError: the tables have no row for t, and rows stand for their own timestep only.
        """
        row = self._rows.get(int(t)) if t == int(t) else None
        self._row = self._between(t) if row is None else row

    def _between(self, t: float) -> Row:
        first, last = self.timesteps[0], self.timesteps[-1]
        if self.between == "by_timestep":
            raise BenchError(
                f"timestep {t} is not in this student's table of {len(self)} steps "
                f"({first} to {last}); sample with the step count it was trained for, or build it "
                "with steps 'pick' or 'interpolate'"
            )
        if t <= first or t >= last:
            return 0 if t <= first else len(self) - 1
        upper = bisect.bisect_left(self.timesteps, t)
        below, above = self.timesteps[upper - 1], self.timesteps[upper]
        if self.between == "interpolate":
            return Blend(upper - 1, (t - below) / (above - below))
        return upper - 1 if t - below <= above - t else upper

    @property
    def row(self) -> Row:
        """Row of the current timestep, or the place between two rows.

        Raises:
            BenchError: no timestep was set.
        """
        if self._row is None:
            raise BenchError("no timestep is set; call the student, not its layers, or set() one")
        return self._row

    @property
    def index(self) -> int:
        """Row of the current timestep, which must have its own or take a neighbour's.

        Raises:
            BenchError: no timestep was set, or it lies between two rows.
        """
        row = self.row
        if isinstance(row, Blend):
            raise BenchError(
                f"the timestep lies between {self.timesteps[row.row]} and "
                f"{self.timesteps[row.row + 1]}; train and calibrate at the table's own timesteps"
            )
        return row
