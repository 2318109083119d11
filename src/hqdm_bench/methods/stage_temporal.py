"""Stage of TFMQ-DM."""

from dataclasses import dataclass, field

from hqdm_bench.methods.stages import RoundingFit, Stage

__all__ = ["RoundTemporal"]


@dataclass(frozen=True)
class RoundTemporal(Stage):
    """Learn the rounding of what embeds the timestep, all of it together.

    Nothing happens where a network has no such part under a known name (`find_temporal_block`).

    Attributes:
        fit: settings.
        timesteps: that it is fitted at, evenly chosen; all if there are fewer.
    """

    fit: RoundingFit = field(default_factory=RoundingFit)
    timesteps: int = 20
