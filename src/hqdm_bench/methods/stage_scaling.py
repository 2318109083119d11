"""Stages that set channel scales, and the power-of-two factors of step sizes."""

from dataclasses import dataclass, field, replace

from hqdm_bench.catalogue import Scale
from hqdm_bench.methods.stages import Stage
from hqdm_bench.quantization import ScalingSettings
from hqdm_bench.quantization.power_of_two import AGREEMENT

__all__ = ["ChooseFactors", "LearnScaling", "SearchThresholds"]


@dataclass(frozen=True)
class LearnScaling(Stage):
    """Learn the scales of every low-bit layer's input channels, and quantize tau W afresh.

    Attributes:
        settings: of the optimisation of one layer.
        timesteps: calls at this many timesteps are used, evenly chosen; all if there are fewer.
    """

    settings: ScalingSettings = field(default_factory=ScalingSettings)
    timesteps: int = 20

    def scaled(self, scale: Scale) -> ScalingSettings:
        """The settings with fewer updates, at least one, and other rates."""
        iterations = max(1, round(self.settings.iterations * scale.updates))
        rate = self.settings.learning_rate * scale.rates
        return replace(self.settings, iterations=iterations, learning_rate=rate)


@dataclass(frozen=True)
class ChooseFactors(Stage):
    """Vote on the power-of-two factors of every layer whose input quantizer has them.

    Attributes:
        agreement: share of the samples that must agree on a factor other than 1.
    """

    agreement: float = AGREEMENT


@dataclass(frozen=True)
class SearchThresholds(Stage):
    """Outlier Suppression+: shift every low-bit layer's input channels, scale them to a threshold.

    Attributes:
        samples: of a layer's inputs that the search looks at.
    """

    samples: int = 128
