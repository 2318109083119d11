"""Equivalent scaling inside a quantized layer: its input is divided, its weight was multiplied."""

from torch import Tensor, nn

from hqdm_bench.quantization.equivalent_scaling import (
    channel_axis,
    channel_maxima,
    divide_input,
    multiply_weight,
    smoothing_scale,
)
from hqdm_bench.quantization.weight import GridRule

__all__ = ["ChannelScaling"]


class ChannelScaling(nn.Module):
    """tau of one layer, 1 until it is set, and the float weight from which tau W is made.

    The weight is only needed until the layer is calibrated and is part of no file.

    Args:
        source: the layer to be quantized.
        alpha: of SmoothQuant's formula, which calibration applies.
        rule: range search of tau W.

    Raises:
        BenchError: a layer whose input channels cannot be scaled.
    """

    tau: Tensor
    weight: Tensor

    def __init__(
        self,
        source: nn.Conv1d | nn.Conv2d | nn.Linear,
        alpha: float = 0.5,
        rule: GridRule = "max",
    ) -> None:
        super().__init__()
        self.axis = channel_axis(source)
        self.alpha = alpha
        self.rule: GridRule = rule
        weight = source.weight.detach()
        self.register_buffer("weight", weight.clone(), persistent=False)
        self.register_buffer("tau", weight.new_ones(weight.shape[1]))

    def smoothing(self, input_max: Tensor) -> Tensor:
        """(c_in,) SmoothQuant's tau over its geometric mean.

        A factor common to all channels changes no code of weight or input. Taking it out leaves the
        weights of the size that learning rates are made for.

        Args:
            input_max: (c_in,) largest magnitudes of the input channels.
        """
        weight_max = channel_maxima(self.weight, 1)
        tau = smoothing_scale(input_max.to(self.tau), weight_max, self.alpha)
        return tau / tau.double().log().mean().exp().to(tau)

    @property
    def scaled_weight(self) -> Tensor:
        """Return tau W, in float."""
        return multiply_weight(self.weight, self.tau)

    def forward(self, x: Tensor) -> Tensor:
        """Return X / tau."""
        return divide_input(x, self.tau, self.axis)

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"channels={len(self.tau)}, alpha={self.alpha}"
