"""Setting the channel scales and shifts of a student's layers from what the layers are given.

Scales are SmoothQuant's; the shift is that of Outlier Suppression+ (Wei et al., EMNLP 2023, arXiv
2304.09145, Eq. 3): the middle of a channel's range, so that it is as far from zero on both sides.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hqdm_bench.methods import Student
from hqdm_bench.quantization import QuantizedLayer

__all__ = ["ChannelExtremes", "recorded_extremes"]


class ChannelExtremes:
    """Forward pre-hook that keeps the lowest and highest value of every input channel.

    Args:
        layer: has a scaling that calibration sets.
    """

    def __init__(self, layer: QuantizedLayer) -> None:
        assert layer.scaling is not None
        self.layer = layer
        self.scaling = layer.scaling
        self.low = torch.full_like(layer.scaling.tau, math.inf)
        self.high = torch.full_like(layer.scaling.tau, -math.inf)

    def __call__(self, layer: QuantizedLayer, inputs: tuple[Tensor, ...]) -> None:
        """Look at an input of the layer."""
        (x,) = inputs
        channels = x.detach().movedim(self.scaling.axis, 0).flatten(1)
        self.low = torch.minimum(self.low, channels.amin(1))
        self.high = torch.maximum(self.high, channels.amax(1))

    def reset(self) -> None:
        """Take scale and shift away."""
        if self.scaling.shift is not None:
            self.scaling.set_shift(torch.zeros_like(self.low))
        self.layer.rescale(torch.ones_like(self.low))

    def smooth(self) -> None:
        """Set the shift, if there is one, and the scales for the shifted channels."""
        if not bool(self.low.isfinite().all() and self.high.isfinite().all()):
            return  # no call ran the layer, which calibration reports
        largest = torch.maximum(-self.low, self.high)
        if self.scaling.shift is not None:
            self.scaling.set_shift((self.low + self.high) / 2)
            largest = (self.high - self.low) / 2
        self.layer.rescale(self.scaling.smoothing(largest))


@contextlib.contextmanager
def recorded_extremes(student: Student) -> Iterator[list[ChannelExtremes]]:
    """While this lasts, what every layer is given whose scaling calibration sets is watched.

    Their scales are 1 and their shifts 0 from here on, so that those of an earlier calibration have
    no say.

    Args:
        student: its layers with such a scaling are changed.
    """
    with contextlib.ExitStack() as hooks:
        extremes = []
        for layer in student.quantized_layers().values():
            if layer.scaling is None or layer.scaling.alpha is None:
                continue
            found = ChannelExtremes(layer)
            found.reset()
            hooks.callback(layer.register_forward_pre_hook(found).remove)
            extremes.append(found)
        yield extremes
