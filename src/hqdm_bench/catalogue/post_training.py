"""How methods that calibrate instead of training go about it in a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["PostTraining", "Scale"]


@dataclass(frozen=True)
class Scale:
    """How far the released settings of a method are cut down; 1 leaves them as they are.

    Attributes:
        updates: share of the optimiser updates.
        rates: factor on the learning rates of weights, of their rounding and of channel scales,
            which fewer updates need; those of step sizes stay.
        data: share of the calibration images.
        memory: GiB of a block's inputs and targets that are kept to fit it on; of more, a random
            part of every call.
    """

    updates: float = 1.0
    rates: float = 1.0
    data: float = 1.0
    memory: float = 4.0


@dataclass(frozen=True)
class PostTraining:
    """The sampler a student is calibrated for, and how far its settings are cut down.

    Calibration inputs are drawn along the full-precision model's paths of this sampler, and the
    step tables have its timesteps as rows.

    Attributes:
        steps: DDIM steps.
        eta: noise share.
        guidance: scale of the predictions; 1 for none.
        scale: of the released settings.
    """

    steps: int
    eta: float
    guidance: float
    scale: Scale = Scale()

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """From a recipe's object ``post_training``."""
        keys = ("updates", "rates", "data", "memory")
        scale = Scale(**{key: entry[key] for key in keys if key in entry})
        return cls(entry["steps"], entry["eta"], entry["guidance"], scale)
