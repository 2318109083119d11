"""Which denoising step the student is at."""

from collections.abc import Sequence

from hqdm_bench.common.errors import BenchError

__all__ = ["StepIndex"]


class StepIndex:
    """Row of the per-step tables for the timestep in use.

    One holder belongs to a student and all its layers refer to it. The row follows from the
    timestep that the student is told, not from counting calls, so an extra forward pass cannot
    shift it. Row 0 is the last denoising step (smallest timestep), row S-1 the first.

    Args:
        timesteps: the S timesteps of the sampler, strictly ascending, for example 1, 51, ..., 951.
    """

    def __init__(self, timesteps: Sequence[int]) -> None:
        self.timesteps = tuple(int(t) for t in timesteps)
        if not self.timesteps or any(
            a >= b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False)
        ):
            raise BenchError(f"timesteps must be strictly ascending, got {list(self.timesteps)}")
        self._rows = {t: row for row, t in enumerate(self.timesteps)}
        self._index: int | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def set(self, t: int) -> None:
        """Move to timestep t.

        Raises:
            BenchError: the tables have no row for t.
        """
        row = self._rows.get(int(t))
        if row is None:
            first, last = self.timesteps[0], self.timesteps[-1]
            raise BenchError(
                f"timestep {t} is not in this student's table of {len(self)} steps "
                f"({first} to {last}); sample with the step count it was trained for"
            )
        self._index = row

    @property
    def index(self) -> int:
        """Row of the current timestep.

        Raises:
            BenchError: no timestep was set.
        """
        if self._index is None:
            raise BenchError("no timestep is set; call the student, not its layers, or set() one")
        return self._index
