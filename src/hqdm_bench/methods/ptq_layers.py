"""Quantized layers of a post-training student, made of one layer of the module."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from hqdm_bench.quantization import (
    MIXED_BITS,
    ActivationQuantizer,
    ChannelScaling,
    GridRule,
    MixedWeight,
    QuantizedLayer,
    RepeatedChannels,
    SplitLayer,
    StaticWeight,
    StepIndex,
    outlier_channels,
    split_channels,
)

__all__ = ["LayerMaker", "MakeScaling"]

MakeScaling = Callable[[Tensor, bool], ChannelScaling]


@dataclass(frozen=True)
class LayerMaker:
    """Makes the layers of one role.

    Attributes:
        weight_bits: b of the weights.
        weight_init: range search behind their grids.
        per_channel: one grid an output channel, or one a tensor.
        activation: makes the quantizer of an input.
        step: the student's step holder.
        low_bit: see `QuantizedLayer`.
        mixed: whether output channels have different bits; only where a bit less and more exist.
        outlier_split: percentage of the input channels that are split; 0 for none.
        scaling: makes the scaling of the input channels from the float weight and whether the layer
            is linear; None for none.
    """

    weight_bits: int
    weight_init: GridRule
    per_channel: bool
    activation: Callable[[], ActivationQuantizer]
    step: StepIndex
    low_bit: bool
    mixed: bool = False
    outlier_split: int = 0
    scaling: MakeScaling | None = None

    def make(self, source: nn.Module, boundary: int | None = None) -> nn.Module:
        """A quantized layer, or a composite of some.

        Args:
            source: Conv1d, Conv2d or Linear layer.
            boundary: input channel at which it is split in two; None for one layer.
        """
        weight = source.weight
        assert isinstance(weight, Tensor)
        weight = weight.detach()
        if boundary is None:
            return self._layer(source, weight)
        first = self._layer(source, weight[:, :boundary])
        second = self._layer(source, weight[:, boundary:], bias=False)
        return SplitLayer(first, second, boundary, isinstance(source, nn.Linear))

    def _layer(self, source: nn.Module, weight: Tensor, bias: bool = True) -> nn.Module:
        count = math.ceil(self.outlier_split * weight.shape[1] / 100)
        channels = outlier_channels(weight, count)
        longer, linear = split_channels(weight, channels), isinstance(source, nn.Linear)
        static = self._quantized(longer)
        scaling = None if self.scaling is None else self.scaling(longer, linear)
        if scaling is not None and count:
            scaling.repeated = channels
        layer = QuantizedLayer(
            source,
            static,
            self.activation(),
            self.step,
            low_bit=self.low_bit,
            scaling=scaling,
        )
        if not bias:
            layer.bias = None
        if not count:
            return layer
        # The grid is that of the halves; on it they are moved apart.
        static.round(split_channels(weight, channels, static.scale))
        return RepeatedChannels(layer, channels, linear)

    def _quantized(self, weight: Tensor) -> StaticWeight:
        mixed = self.mixed and self.weight_bits in MIXED_BITS
        kind = MixedWeight if mixed else StaticWeight
        return kind.from_float(
            weight, self.weight_bits, self.weight_init, per_channel=self.per_channel
        )
