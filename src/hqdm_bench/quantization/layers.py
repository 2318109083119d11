"""A convolution or linear layer with quantized weight and input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation, divides, fold
from hqdm_bench.quantization.activation import ActivationQuantizer
from hqdm_bench.quantization.step import StepIndex
from hqdm_bench.quantization.weight import LoRAWeight, StaticWeight

__all__ = ["QuantizedLayer", "Rotation"]

CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d}


@dataclass(frozen=True)
class Rotation:
    """Which inputs are rotated, and in what blocks.

    Attributes:
        order: k of the Hadamard block 2^k.
        rank3: also rotate rank-3 inputs. The released HQ-DM rotates images (rank 4, channels) and
            vectors (rank 2) only; every linear layer of a transformer sees rank 3.
    """

    order: int = 5
    rank3: bool = False

    def applies(self, channels: int, rank: int) -> bool:
        """Whether an input of this many channels and axes is rotated; whole blocks are required."""
        return (rank in (2, 4) or (rank == 3 and self.rank3)) and divides(channels, self.order)


class QuantizedLayer(nn.Module):
    """op(x_hat, W_hat) + bias with x_hat = H Q(H x) where the rotation applies, else Q(x).

    Args:
        source: the layer to quantize (Conv1d, Conv2d or Linear); gives geometry and bias, which
            stays float.
        weight: effective weight.
        activation: input quantizer.
        step: the student's step holder; referred to, not copied.
        rotation: which inputs are rotated, or None.

    Raises:
        BenchError: another kind of layer, a grouped convolution, or padding other than zeros.
    """

    bias: Tensor | None

    def __init__(
        self,
        source: nn.Module,
        weight: LoRAWeight | StaticWeight,
        activation: ActivationQuantizer,
        step: StepIndex,
        rotation: Rotation | None = None,
    ) -> None:
        super().__init__()
        self.geometry = _geometry(source)
        self.weight = weight
        self.activation = activation
        self.step = step
        self.rotation = rotation
        bias: Tensor | None = source.bias  # type: ignore[assignment]
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self._frozen: _Cache | None = None

    @property
    def axis(self) -> int:
        """Channel axis of the input: 1 for a convolution, the last for a linear layer."""
        return -1 if self.geometry is None else 1

    @property
    def in_channels(self) -> int:
        """Input channels."""
        return self.weight.shape[1]

    def rotates(self, x: Tensor) -> bool:
        """Whether this input is rotated."""
        return self.rotation is not None and self.rotation.applies(self.in_channels, x.dim())

    def quantizer_input(self, x: Tensor) -> Tensor:
        """What the activation quantizer sees, for calibration: x, rotated if the layer does so."""
        return self._block_rotation()(x) if self.rotates(x) else x

    def forward(self, x: Tensor) -> Tensor:
        """Quantized layer output at the current step, floating point."""
        rotated = self.rotates(x)
        step = self.step.index
        if self._frozen is None or torch.is_grad_enabled():
            rotation = self._block_rotation() if rotated else None
            return self._operate(self.activation(x, step, rotation), self.weight())
        # With the back rotation folded into the weight the input stays in rotated coordinates.
        x_hat = self.activation(self.quantizer_input(x), step)
        return self._operate(x_hat, self._frozen.weight(self, rotated))

    def freeze(self) -> Self:
        """Keep the effective weight for calls without gradients, with the back rotation folded in.

        Calls with gradients ignore it, and a parameter that changes after this invalidates it.
        """
        self._frozen = _Cache()
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
            self._frozen = _Cache()
        return super()._apply(fn, recurse)

    def _block_rotation(self) -> BlockRotation:
        assert self.rotation is not None
        return BlockRotation(self.rotation.order, self.axis)

    def _operate(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.geometry is None:
            return nn.functional.linear(x, weight, self.bias)
        convolve = CONVOLUTIONS[weight.dim() - 2]
        return convolve(x, weight, self.bias, *self.geometry)


class _Cache:
    """Effective weights of one layer, plain and folded, valid while no parameter changes."""

    def __init__(self) -> None:
        self._key: tuple[tuple[int, int], ...] = ()
        self._weights: dict[bool, Tensor] = {}

    def weight(self, layer: QuantizedLayer, rotated: bool) -> Tensor:
        tensors = [*layer.weight.parameters(), *layer.weight.buffers()]
        # Every in-place update of a tensor, an optimiser's for one, raises its version; a copy of
        # the layer has other addresses.
        key = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        if key != self._key:
            self._key, self._weights = key, {}
        if rotated not in self._weights:
            weight = layer.weight()
            if rotated and layer.rotation is not None:
                weight = fold(weight, layer.rotation.order)
            self._weights[rotated] = weight
        return self._weights[rotated]


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
