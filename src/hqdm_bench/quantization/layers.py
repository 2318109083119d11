"""A convolution or linear layer with quantized weight and input."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation, Transform
from hqdm_bench.quantization.activation import ActivationQuantizer
from hqdm_bench.quantization.adaround import AdaRoundWeight
from hqdm_bench.quantization.channel_scaling import ChannelScaling
from hqdm_bench.quantization.frozen import FrozenWeight
from hqdm_bench.quantization.lora_weight import LoRAWeight
from hqdm_bench.quantization.rotation import Rotation
from hqdm_bench.quantization.step import StepIndex, row_of
from hqdm_bench.quantization.trained_weight import TrainedWeight
from hqdm_bench.quantization.weight import StaticWeight

__all__ = ["QuantizedLayer", "Weight"]

Weight = LoRAWeight | StaticWeight | AdaRoundWeight | TrainedWeight

CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d}


class QuantizedLayer(nn.Module):
    """op(x_hat, W_hat) + bias with x_hat = R^T Q(R x) where the rotation applies, else Q(x).

    Args:
        source: the layer to quantize (Conv1d, Conv2d or Linear); gives geometry and bias, which
            stays float.
        weight: effective weight.
        activation: input quantizer.
        step: the student's step holder; referred to, not copied.
        rotation: which inputs are rotated, or None.
        signs: (c_in,) of +-1, applied to the channels before they are rotated; None for the plain
            Hadamard matrix.
        weight_is_rotated: ``weight`` is Q(R W) (Double Hadamard), so the input is not rotated back.
            The rotation must then apply to every input of the layer.
        centred: subtract the mean of each channel at each step (`centre`, set by calibration) from
            the input before anything else, and add it to the result of its quantization. Where the
            input is zero-padded the padding stays zero.
        chooses: calibration decides whether this layer rotates at all, by what it measures.
        low_bit: whether the layer has the low bits of its student rather than a fixed width; None
            takes a weight that is trained for low-bit and any other for fixed.
        scaling: shifts and divides the input channels before anything else; `rescale` multiplies
            the weight.

    Raises:
        BenchError: another kind of layer, a grouped convolution, or padding other than zeros.
    """

    bias: Tensor | None
    signs: Tensor | None
    centre: Tensor | None
    rotates_input: Tensor | None

    def __init__(
        self,
        source: nn.Module,
        weight: Weight,
        activation: ActivationQuantizer,
        step: StepIndex,
        rotation: Rotation | None = None,
        *,
        signs: Tensor | None = None,
        weight_is_rotated: bool = False,
        centred: bool = False,
        chooses: bool = False,
        low_bit: bool | None = None,
        scaling: ChannelScaling | None = None,
    ) -> None:
        super().__init__()
        self.geometry = _geometry(source)
        self.weight: Weight = weight
        trained = isinstance(weight, (LoRAWeight, TrainedWeight))
        self.low_bit = trained if low_bit is None else low_bit
        self.activation = activation
        self.step = step
        self.rotation = rotation
        self.weight_is_rotated = weight_is_rotated
        self.scaling = scaling
        bias: Tensor | None = source.bias  # type: ignore[assignment]
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.register_buffer("signs", signs)
        centre = torch.zeros(len(step), self.in_channels) if centred else None
        self.register_buffer("centre", centre)
        self.register_buffer("rotates_input", torch.ones(1) if chooses else None)
        self._flag: tuple[object, bool] = (None, False)
        self._frozen: FrozenWeight | None = None

    @property
    def linear(self) -> bool:
        """Whether this is a linear layer, whose channels are the last axis of its input."""
        return self.geometry is None

    @property
    def in_channels(self) -> int:
        """Input channels."""
        return self.weight.shape[1]

    def rotates(self, x: Tensor) -> bool:
        """Whether this input is rotated."""
        return self.rotation_of(x) is not None

    def rotation_of(self, x: Tensor) -> BlockRotation | None:
        """The rotation of this input, or None."""
        if self.rotation is None or self.switched_off:
            return None
        dim = self.rotation.dim(self.linear)
        order = self.rotation.block_order(x.shape[dim], x.dim())
        return BlockRotation(order, dim, self.signs, self.rotation.transform) if order else None

    def use_transform(self, transform: Transform) -> Self:
        """Choose how inputs are rotated; the same numbers but for the rounding of sums."""
        if self.rotation is not None:
            self.rotation = replace(self.rotation, transform=transform)
        return self

    def switch_rotation(self, on: bool) -> None:
        """Decide whether inputs are rotated; only for a layer that ``chooses``.

        Raises:
            BenchError: the rotation of this layer is not a matter of choice.
        """
        if self.rotates_input is None:
            raise BenchError("this layer's rotation is fixed; build it with chooses=True")
        self.rotates_input.fill_(float(on))

    @property
    def switched_off(self) -> bool:
        """Whether calibration decided against the rotation."""
        flag = self.rotates_input
        if flag is None:
            return False
        key = (flag.data_ptr(), flag._version)
        if self._flag[0] != key:  # read once: reading from a GPU waits for it
            self._flag = (key, not bool(flag))
        return self._flag[1]

    def measured(self) -> dict[str, Tensor]:
        """What calibration sets and training leaves alone, by name; not copied."""
        own = {"centre": self.centre, "rotates_input": self.rotates_input}
        ranges = {f"activation.{key}": value for key, value in self.activation.untrained().items()}
        if self.scaling is not None:  # its weight was quantized again for it
            own |= {f"scaling.{key}": value for key, value in self.scaling.state_dict().items()}
            own |= {f"weight.{key}": value for key, value in self.weight.named_buffers()}
        return ranges | {key: value for key, value in own.items() if value is not None}

    @torch.no_grad()
    def rescale(self, tau: Tensor) -> None:
        """Divide the input channels by tau from now on, and quantize tau W afresh.

        Args:
            tau: (c_in,).

        Raises:
            BenchError: the layer was built without a scaling, or its weight is being learned.
        """
        if self.scaling is None:
            raise BenchError("this layer's input channels are not scaled; build it with a scaling")
        if not isinstance(self.weight, StaticWeight):
            raise BenchError("scale the input channels before the weight is learned")
        self.scaling.tau.copy_(tau)
        self.weight.requantize(
            self.scaling.scaled_weight, self.scaling.rule, per_channel=self.scaling.per_channel
        )
        if self.scaling.repeated is not None:
            self.weight.round(self.scaling.moved_apart(self.weight.scale))
        self.unfreeze()

    def quantizer_input(self, x: Tensor) -> Tensor:
        """What the activation quantizer sees at the current step, for calibration."""
        x = self._centred(self._scaled(x))
        rotation = self.rotation_of(x)
        return x if rotation is None else rotation(x)

    def forward(self, x: Tensor) -> Tensor:
        """Quantized layer output at the current step, floating point."""
        row = self.step.row
        frozen = None if torch.is_grad_enabled() else self._frozen
        x = self._centred(self._scaled(x))
        rotation = self.rotation_of(x)
        order = 0
        if rotation is not None and (self.weight_is_rotated or (frozen and self._foldable)):
            # The weight takes up the rotation back, so the input stays in rotated coordinates.
            order = 0 if self.weight_is_rotated else rotation.order
            x_hat = self._uncentred(self.activation(rotation(x), row), rotation)
        else:
            x_hat = self._uncentred(self.activation(x, row, rotation))
        return self._operate(x_hat, frozen.weight(self, row, order) if frozen else self.weight(row))

    def freeze(self) -> Self:
        """Keep the effective weight for calls without gradients, with the back rotation folded in.

        Calls with gradients ignore it, and a parameter that changes after this invalidates it.
        """
        self._frozen = FrozenWeight()
        return self

    def unfreeze(self) -> Self:
        """Drop the kept weight."""
        self._frozen = None
        return self

    @property
    def frozen(self) -> bool:
        """Whether effective weights are kept."""
        return self._frozen is not None

    def train(self, mode: bool = True) -> Self:
        """Training mode drops the kept weight."""
        if mode:
            self.unfreeze()
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        if self._frozen is not None:
            self._frozen = FrozenWeight()
        return super()._apply(fn, recurse)

    @property
    def _foldable(self) -> bool:
        return self.rotation is not None and self.rotation.foldable

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.scaling is None else self.scaling(x)

    def _centred(self, x: Tensor) -> Tensor:
        return x if self.centre is None else x - self._centre_like(x)

    def _uncentred(self, x: Tensor, rotation: BlockRotation | None = None) -> Tensor:
        """Add the centre again, rotated like the input."""
        if self.centre is None:
            return x
        centre = self._centre_like(x)
        return x + (centre if rotation is None else rotation(centre))

    def _centre_like(self, x: Tensor) -> Tensor:
        """The current step's centre, shaped to broadcast over an input."""
        assert self.centre is not None
        centre = row_of(self.centre, self.step.row)
        return centre if self.linear else centre.view(1, -1, *[1] * (x.dim() - 2))

    def _operate(self, x: Tensor, weight: Tensor) -> Tensor:
        taps = None if self.scaling is None else self.scaling.taps
        if self.geometry is None:
            out = nn.functional.linear(x, weight, self.bias)
            return out if taps is None else out + taps
        convolve = CONVOLUTIONS[weight.dim() - 2]
        out = convolve(x, weight, self.bias, *self.geometry)
        if taps is None:
            return out
        # Less of the kernel meets the shift where it reaches into the padding.
        return out + convolve(x.new_ones(1, 1, *x.shape[2:]), taps, None, *self.geometry)


def _geometry(source: nn.Module) -> tuple[Any, ...] | None:
    """Stride, padding, dilation and groups of a convolution; None for a linear layer."""
    if isinstance(source, nn.Linear):
        return None
    if not isinstance(source, (nn.Conv1d, nn.Conv2d)):
        raise BenchError(
            f"cannot quantize a {type(source).__name__}; Conv1d, Conv2d or Linear can be"
        )
    if source.groups != 1 or source.padding_mode != "zeros":
        raise BenchError(
            f"cannot quantize a convolution with groups={source.groups}, "
            f"padding_mode='{source.padding_mode}'; leave it in full precision"
        )
    return source.stride, source.padding, source.dilation, source.groups
