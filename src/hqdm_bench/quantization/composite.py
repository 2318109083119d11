"""Layers made of quantized layers: what becomes of one layer whose input is parted."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.layers import QuantizedLayer
from hqdm_bench.quantization.outlier_split import split_channels

__all__ = [
    "CompositeLayer",
    "RepeatedChannels",
    "SplitLayer",
    "composites",
    "float_weight",
    "make_composite",
    "part_input",
    "source_name",
]


class CompositeLayer(nn.Module, ABC):
    """Stands in for one layer of a module and holds quantized layers, or further composites.

    Whatever walks the quantized layers of a student needs to know nothing of it. What compares them
    with the module they were made of asks `float_weight` for their weights.
    """

    @abstractmethod
    def part(self, child: str, weight: Tensor) -> Tensor:
        """The float weight of a child.

        Args:
            child: name of the child.
            weight: float weight of the layer that this one stands in for.
        """

    @abstractmethod
    def given(self, child: str, x: Tensor) -> Tensor:
        """The input of a child.

        Args:
            child: name of the child.
            x: input of this layer.
        """

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Constants that say how to build it again, without its children and tensors."""


class SplitLayer(CompositeLayer):
    """first(x[:s]) + second(x[s:]) along the input channels, each with grids of its own.

    Q-Diffusion's shortcut split (Li et al., ICCV 2023, Section 3.3): the input of an output block
    is a concatenation whose halves have different ranges. The bias belongs to the first part.

    Args:
        first: layer of the channels before the boundary, with the bias.
        second: layer of the others, without.
        boundary: s.
        linear: whether the channels are the last axis of the input, otherwise axis 1.
    """

    def __init__(self, first: nn.Module, second: nn.Module, boundary: int, linear: bool) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.boundary = boundary
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Sum of what both parts make of their channels."""
        return self.first(self.given("first", x)) + self.second(self.given("second", x))

    def given(self, child: str, x: Tensor) -> Tensor:
        """The channels of a half."""
        dim = -1 if self.linear else 1
        first, second = x.split([self.boundary, x.shape[dim] - self.boundary], dim)
        return first if child == "first" else second

    def part(self, child: str, weight: Tensor) -> Tensor:
        """The columns of a half."""
        return weight[:, : self.boundary] if child == "first" else weight[:, self.boundary :]

    def description(self) -> dict[str, Any]:
        """Boundary and axis."""
        return {"kind": "split", "boundary": self.boundary, "linear": self.linear}

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> Self:
        """Made again, with nothing in the place of its parts."""
        return cls(nn.Identity(), nn.Identity(), description["boundary"], description["linear"])

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"boundary={self.boundary}"


class RepeatedChannels(CompositeLayer):
    """A layer whose input has some channels twice or more: outlier channel splitting.

    Args:
        layer: takes c_in + count channels; its weight is one of `split_channels`.
        channels: (count,) int32, what is repeated behind the input.
        linear: whether the channels are the last axis of the input, otherwise axis 1.
    """

    channels: Tensor

    def __init__(self, layer: nn.Module, channels: Tensor, linear: bool) -> None:
        super().__init__()
        self.layer = layer
        self.linear = linear
        self.register_buffer("channels", channels)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of the longer input."""
        return self.layer(self.given("layer", x))

    def given(self, child: str, x: Tensor) -> Tensor:
        """The longer input."""
        # Indexing, whose gradient adds up in the same order every time; `index_select` does not.
        channels = self.channels.to(x.device).long()
        own = x[..., channels] if self.linear else x[:, channels]
        return torch.cat([x, own], -1 if self.linear else 1)

    def part(self, child: str, weight: Tensor) -> Tensor:
        """The weight of the longer input, split by the step sizes of the layer."""
        assert isinstance(self.layer, QuantizedLayer)
        return split_channels(weight, self.channels, self.layer.weight.scale.detach())

    @property
    def extra_weights(self) -> int:
        """Entries of the weight that the repeated channels cost."""
        assert isinstance(self.layer, QuantizedLayer)
        shape = self.layer.weight.shape
        return len(self.channels) * shape.numel() // shape[1]

    def description(self) -> dict[str, Any]:
        """Number of repeated channels, and the axis."""
        return {"kind": "repeat", "count": len(self.channels), "linear": self.linear}

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> Self:
        """Made again, with nothing in the place of its layer and no channels chosen yet."""
        channels = torch.zeros(description["count"], dtype=torch.int32)
        return cls(nn.Identity(), channels, description["linear"])

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"repeated={len(self.channels)}"


def make_composite(description: Mapping[str, Any]) -> CompositeLayer:
    """A composite layer without its parts, which are still to be put in by name.

    Args:
        description: what a composite layer says of itself.

    Raises:
        BenchError: it is of an unknown kind, or lacks something.
    """
    kinds = {"split": SplitLayer.described, "repeat": RepeatedChannels.described}
    try:
        return kinds[description["kind"]](description)
    except KeyError as error:
        raise BenchError(
            f"a composite layer of this file cannot be read (no {error}); pack it again"
        ) from None


def composites(network: nn.Module) -> dict[str, CompositeLayer]:
    """Every composite layer by its name, outer ones first."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, CompositeLayer)
    }


def source_name(network: nn.Module, name: str) -> str:
    """Name of the module's layer that a quantized layer stands for, or is a part of.

    Args:
        network: holds the quantized layer.
        name: of the quantized layer in the network.
    """
    return next(iter(_around(network, name)), name)


def float_weight(network: nn.Module, teacher: nn.Module, name: str) -> Tensor:
    """The float weight that a quantized layer stands for, also where it is a part of a layer.

    Args:
        network: holds the quantized layer.
        teacher: the module the network was made of.
        name: of the quantized layer in the network.

    Raises:
        BenchError: the network has no quantized layer of this name.
    """
    found = dict(network.named_modules()).get(name)
    if not isinstance(found, QuantizedLayer):
        raise BenchError(f"{type(network).__name__} has no quantized layer '{name}'")
    weight = teacher.get_submodule(source_name(network, name)).weight
    assert isinstance(weight, Tensor)
    weight = weight.detach()
    for outer, layer in _around(network, name).items():
        weight = layer.part(_child(outer, name), weight)
    return weight


def part_input(network: nn.Module, name: str, x: Tensor) -> Tensor:
    """What a quantized layer is given where the layer that it stands for is given x.

    Args:
        network: holds the quantized layer.
        name: of the quantized layer in the network.
        x: input of the module's layer.
    """
    for outer, layer in _around(network, name).items():
        x = layer.given(_child(outer, name), x)
    return x


def _child(outer: str, name: str) -> str:
    """Name of the child of a composite layer that holds a layer."""
    return name.removeprefix(f"{outer}.").partition(".")[0]


def _around(network: nn.Module, name: str) -> dict[str, CompositeLayer]:
    """Composite layers that a layer is in, by name, the outermost first."""
    parts = name.split(".")
    prefixes = [".".join(parts[:length]) for length in range(1, len(parts))]
    found = {prefix: network.get_submodule(prefix) for prefix in prefixes}
    return {key: layer for key, layer in found.items() if isinstance(layer, CompositeLayer)}
