"""What happens to a student once it is built, stage by stage: settings only, nothing that runs.

A method lists its stages (`MethodOptions.stages`); package distill runs them. The defaults are the
released hyper-parameters, which a `Scale` cuts down to what a small model and a small machine take.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from hqdm_bench.catalogue import Scale
from hqdm_bench.quantization import BetaSchedule
from hqdm_bench.quantization.blocks import ALL_BLOCKS, Kind

__all__ = [
    "Calibrate",
    "Commit",
    "CorrectNoise",
    "Distill",
    "Fit",
    "LearnSteps",
    "RoundWeights",
    "RoundingFit",
    "Stage",
    "StepFit",
]


@dataclass(frozen=True)
class Fit:
    """How a part of a network is fitted by Adam.

    Attributes:
        updates: of Adam.
        batch: samples an update.
        rate: of the first update.
        decay: of the rate: a half ``cosine`` to zero, or ``none``.
        exponent: p of the loss.
    """

    updates: int
    batch: int
    rate: float
    decay: Literal["cosine", "none"]
    exponent: float

    def factor(self, update: int) -> float:
        """What the rate is multiplied by at an update, counted from 1."""
        if self.decay == "none":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (update - 1) / self.updates))

    def scaled(self, scale: Scale) -> Self:
        """The same with fewer updates, at least one, and other rates."""
        updates = max(1, round(self.updates * scale.updates))
        return replace(self, updates=updates, rate=self.rate * scale.rates)


@dataclass(frozen=True)
class RoundingFit(Fit):
    """`Fit` of the rounding of weights; the defaults are Q-Diffusion's, TFMQ-DM's and DMQ's.

    Attributes:
        penalty: weight of the rounding penalty.
        first_beta: its exponent when it sets in.
        last_beta: its exponent at the end.
        warm_up: share of the updates without it.
    """

    updates: int = 20_000
    batch: int = 32
    rate: float = 1e-3
    decay: Literal["cosine", "none"] = "none"
    exponent: float = 2.0
    penalty: float = 0.01
    first_beta: float = 20.0
    last_beta: float = 2.0
    warm_up: float = 0.2

    @property
    def beta(self) -> BetaSchedule:
        """Schedule of the penalty's exponent."""
        return BetaSchedule(self.updates, self.first_beta, self.last_beta, self.warm_up)


@dataclass(frozen=True)
class StepFit(Fit):
    """`Fit` of the step sizes of the inputs; the defaults are Q-Diffusion's."""

    updates: int = 5000
    batch: int = 32
    rate: float = 4e-4
    decay: Literal["cosine", "none"] = "cosine"
    exponent: float = 2.4

    def scaled(self, scale: Scale) -> Self:
        """The same with fewer updates; the rate, in units of a step size, stays."""
        return replace(super().scaled(scale), rate=self.rate)


@dataclass(frozen=True)
class Stage:
    """One thing that is done to a student."""

    @property
    def name(self) -> str:
        """Shown in messages and in what a run took."""
        return "".join(f" {c.lower()}" if c.isupper() else c for c in type(self).__name__).strip()

    @property
    def costly(self) -> bool:
        """Whether a killed run should find it done."""
        return True


@dataclass(frozen=True)
class Calibrate(Stage):
    """Set the ranges of the inputs as the method's options say."""

    @property
    def costly(self) -> bool:
        """No: a pass over the calls."""
        return False


@dataclass(frozen=True)
class RoundWeights(Stage):
    """Learn the rounding of the low-bit weights, block after block.

    Attributes:
        fit: settings.
        timesteps: calls at this many timesteps are used, evenly chosen; all if there are fewer.
        leave_out: patterns on names of layers that keep their rounding.
        blocks: kinds of blocks that are fitted as a whole; the layers of others go one by one.
    """

    fit: RoundingFit = RoundingFit()
    timesteps: int = 20
    leave_out: tuple[str, ...] = ()
    blocks: tuple[Kind, ...] = ALL_BLOCKS


@dataclass(frozen=True)
class LearnSteps(Stage):
    """Learn the step sizes of the low-bit layers' inputs, block after block.

    Every block is given its inputs in full precision, as released. Step sizes of quantized
    attention are learned with the block it is in, or by themselves.

    Attributes:
        fit: settings.
        timesteps: as in `RoundWeights`.
        leave_out: patterns on names of layers and attentions that keep their step sizes.
        blocks: as in `RoundWeights`; attention over pixels goes layer by layer, as released.
    """

    fit: StepFit = StepFit()
    timesteps: int = 20
    leave_out: tuple[str, ...] = ()
    blocks: tuple[Kind, ...] = ("residual", "transformer")


@dataclass(frozen=True)
class Distill(Stage):
    """Train on the teacher's predictions along cached trajectories; the recipe has the settings."""

    @property
    def costly(self) -> bool:
        """No: it has a checkpoint of its own."""
        return False


@dataclass(frozen=True)
class Commit(Stage):
    """Keep of weights that were trained in full precision the codes alone."""

    @property
    def costly(self) -> bool:
        """No: it rounds."""
        return False


@dataclass(frozen=True)
class CorrectNoise(Stage):
    """Measure the student's noise error along the teacher's sampling paths, for its correction.

    Attributes:
        images: paths.
    """

    images: int = 1024
