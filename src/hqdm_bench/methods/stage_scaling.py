"""Stages of DMQ: learned channel scales, and power-of-two factors of step sizes."""

from dataclasses import dataclass

from hqdm_bench.quantization import ScalingSettings
from hqdm_bench.quantization.power_of_two import AGREEMENT

__all__ = ["ChooseFactors", "LearnScaling"]


@dataclass(frozen=True)
class LearnScaling:
    """Learn the scales of every low-bit layer's input channels, then quantize tau W afresh.

    Attributes:
        settings: of the optimisation of one layer.
    """

    settings: ScalingSettings = ScalingSettings()


@dataclass(frozen=True)
class ChooseFactors:
    """Vote on the power-of-two factors of every layer whose input quantizer has them.

    Attributes:
        agreement: share of the samples that must agree on a factor other than 1.
    """

    agreement: float = AGREEMENT
