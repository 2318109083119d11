"""The loss of every update."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hqdm_bench.common.files import atomic_path

__all__ = ["COLUMNS", "History"]

COLUMNS = ("update", "epoch", "step", "timestep", "loss")


@dataclass
class History:
    """Losses in the order of the updates.

    An epoch is one trajectory, gone through from step S-1 (noisiest) to step 0.

    Attributes:
        timesteps: the S diffusion times, ascending.
        losses: one number per update.
    """

    timesteps: tuple[int, ...]
    losses: list[float] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[int, int, int, int, float]]:
        """(update from 1, epoch from 1, step index, timestep, loss)."""
        steps = len(self.timesteps)
        for done, loss in enumerate(self.losses):
            step = steps - 1 - done % steps
            yield done + 1, done // steps + 1, step, self.timesteps[step], loss

    def epoch_means(self) -> list[float]:
        """Mean loss of every finished epoch."""
        steps = len(self.timesteps)
        whole = range(0, len(self.losses) - steps + 1, steps)
        return [sum(self.losses[first : first + steps]) / steps for first in whole]

    def write(self, path: Path) -> None:
        """Write ``history.csv``; losses keep every digit."""
        with (
            atomic_path(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as handle,
        ):
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(self.rows())
