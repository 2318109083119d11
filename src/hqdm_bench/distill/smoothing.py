"""Setting the channel scales of a student's layers from what the layers are given (SmoothQuant)."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from hqdm_bench.methods import Student
from hqdm_bench.quantization import QuantizedLayer, channel_maxima

__all__ = ["ChannelMaxima", "recorded_maxima"]


class ChannelMaxima:
    """Forward pre-hook that keeps the largest magnitude of every input channel.

    Args:
        layer: has a scaling.
    """

    def __init__(self, layer: QuantizedLayer) -> None:
        assert layer.scaling is not None
        self.layer = layer
        self.axis = layer.scaling.axis
        self.values = torch.zeros_like(layer.scaling.tau)

    def __call__(self, layer: QuantizedLayer, inputs: tuple[Tensor, ...]) -> None:
        """Look at an input of the layer."""
        (x,) = inputs
        self.values = torch.maximum(self.values, channel_maxima(x, self.axis))

    def smooth(self) -> None:
        """Scale the layer by SmoothQuant's formula."""
        assert self.layer.scaling is not None
        self.layer.rescale(self.layer.scaling.smoothing(self.values))


@contextlib.contextmanager
def recorded_maxima(student: Student) -> Iterator[list[ChannelMaxima]]:
    """While this lasts, what every layer with a scaling is given is watched.

    Their scales are 1 from here on, so that those of an earlier calibration have no say.

    Args:
        student: its layers with a scaling are changed.
    """
    layers = [layer for layer in student.quantized_layers().values() if layer.scaling is not None]
    with contextlib.ExitStack() as hooks:
        maxima = []
        for layer in layers:
            found = ChannelMaxima(layer)
            layer.rescale(torch.ones_like(found.values))
            hooks.callback(layer.register_forward_pre_hook(found).remove)
            maxima.append(found)
        yield maxima
