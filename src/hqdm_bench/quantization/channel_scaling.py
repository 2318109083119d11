"""An equivalent transformation inside a quantized layer: its input channels shifted and scaled.

The input is divided by tau and the weight was multiplied by it (`equivalent_scaling`). A shift z is
subtracted from the input before, and what the layer makes of z is added to the output, computed
with the float weight, so that the shift meets no rounding (Outlier Suppression+, Wei et al., EMNLP
2023, arXiv 2304.09145, Eq. 4).
"""

import torch
from torch import Tensor, nn

from hqdm_bench.quantization.equivalent_scaling import (
    channel_maxima,
    divide_input,
    multiply_weight,
    smoothing_scale,
)
from hqdm_bench.quantization.outlier_split import split_channels
from hqdm_bench.quantization.weight import GridRule

__all__ = ["ChannelScaling"]


class ChannelScaling(nn.Module):
    """tau and z of one layer, 1 and 0 until they are set, and the float weight.

    The float weight, from which tau W is made, is part of no file: a student is built from the
    module it was made of, which has it.

    Args:
        weight: float weight of the layer, (c_out, c_in, ...).
        linear: whether the channels are the last axis of the input, otherwise axis 1.
        alpha: of SmoothQuant's formula, which calibration applies; None where tau is learned.
        rule: range search of tau W.
        per_channel: one grid an output channel of tau W; otherwise one for all.
        shifted: subtract a shift, too.
    """

    tau: Tensor
    weight: Tensor
    shift: Tensor | None
    taps: Tensor | None
    repeated: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        linear: bool,
        alpha: float | None = None,
        rule: GridRule = "max",
        *,
        per_channel: bool = True,
        shifted: bool = False,
    ) -> None:
        super().__init__()
        self.axis = -1 if linear else 1
        self.alpha = alpha
        self.rule: GridRule = rule
        self.per_channel = per_channel
        weight = weight.detach()
        channels = weight.shape[1]
        self.register_buffer("weight", weight.clone(), persistent=False)
        self.register_buffer("tau", weight.new_ones(channels))
        self.register_buffer("shift", weight.new_zeros(channels) if shifted else None)
        # What z contributes to the output, by output channel and place in the kernel.
        taps = torch.zeros_like(weight[:, :1] if weight.dim() > 2 else weight[:, 0])
        self.register_buffer("taps", taps if shifted else None)
        # Input channels that the layer is given twice, at its end (`split_channels`).
        self.register_buffer("repeated", None, persistent=False)

    def smoothing(self, input_max: Tensor) -> Tensor:
        """(c_in,) SmoothQuant's tau.

        Args:
            input_max: (c_in,) largest magnitudes of the input channels, shifted.
        """
        assert self.alpha is not None
        maxima = channel_maxima(self.weight, 1)
        return smoothing_scale(input_max.to(self.tau), maxima, self.alpha)

    @torch.no_grad()
    def set_shift(self, shift: Tensor) -> None:
        """Subtract another shift, (c_in,), from now on; only for a layer with one."""
        assert self.shift is not None
        assert self.taps is not None
        self.shift.copy_(shift)
        product = multiply_weight(self.weight.double(), self.shift.double()).sum(1)
        self.taps.copy_(product.view(self.taps.shape))

    @property
    def scaled_weight(self) -> Tensor:
        """Return tau W, in float."""
        return multiply_weight(self.weight, self.tau)

    def moved_apart(self, step: Tensor) -> Tensor:
        """Return tau W, the halves of repeated channels apart, so that they round differently.

        Args:
            step: of the grid, to broadcast over the weight.
        """
        if self.repeated is None:
            return self.scaled_weight
        own = self.weight.shape[1] - len(self.repeated)
        apart = split_channels(torch.zeros_like(self.weight[:, :own]), self.repeated, step)
        return self.scaled_weight + apart

    def forward(self, x: Tensor) -> Tensor:
        """Return (X - z) / tau."""
        if self.shift is not None:
            dims = 0 if self.axis == -1 else x.dim() - 2
            x = x - self.shift.view(-1, *[1] * dims)
        return divide_input(x, self.tau, self.axis)

    def extra_repr(self) -> str:
        """Shown by print()."""
        shifted = self.shift is not None
        return f"channels={len(self.tau)}, alpha={self.alpha}, shifted={shifted}"
