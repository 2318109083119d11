"""Outlier channels put into a trained UNet without changing what it computes.

Large networks have a few channels whose activations are many times larger than the others', and
these are what a rotation spreads out. The small models here have none. A sweep of their strength
shows from where on a rotation pays. They are synthetic: a real outlier channel comes with weights
that were trained around it.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.models.attention import BasicTransformerBlock, SpatialTransformer
from hqdm_bench.models.resblock import ResBlock

__all__ = ["RaisedSiLU", "add_outlier_channels"]

Network = TypeVar("Network", bound=nn.Module)


class RaisedSiLU(nn.Module):
    """SiLU with a gain a channel behind it, which no norm before it could stand in for.

    Args:
        channels: C; every gain starts at 1.
    """

    gain: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("gain", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        return nn.functional.silu(x) * self.gain


@dataclass(frozen=True)
class Site:
    """An activation that nothing but the weights of its consumers reads.

    Attributes:
        name: of the module that makes it.
        gains: tensors that scale it, one row a channel.
        consumers: weights (c_out, channels, ...) that it is multiplied by.
    """

    name: str
    gains: tuple[Tensor, ...]
    consumers: tuple[Tensor, ...]


@torch.no_grad()
def add_outlier_channels(unet: Network, factor: float, share: float, seed: int) -> Network:
    """A copy whose layer inputs have outlier channels, with the same function.

    At every site a share of the channels, at least one, is multiplied by the factor and the weights
    that read these channels are divided by it. A power of two only moves exponents, so the outputs
    are the same to the last bit; other factors round. Sites: the layer norms of transformer blocks,
    the value half of their gated projections, the group norm before a transformer, and the SiLU
    before each 3x3 convolution of a ResBlock (replaced by a `RaisedSiLU`). Names of layers and of
    their tensors stay; each RaisedSiLU adds its ``gain``.

    Args:
        unet: in full precision, without outlier channels; not changed.
        factor: what the channels are multiplied by, above 0; 1 changes nothing.
        share: of the channels of a site, above 0 to 1.
        seed: of the choice of channels; every site has its own stream.

    Raises:
        BenchError: a factor or share out of range, or outlier channels that are already there.
    """
    if not (factor > 0 and math.isfinite(factor)) or not 0 < share <= 1:
        raise BenchError(
            f"outlier channels: factor {factor} and share {share}; the factor must be a positive "
            "number and the share above 0 and at most 1"
        )
    if any(isinstance(module, RaisedSiLU) for module in unet.modules()):
        raise BenchError("this network has outlier channels already; start from the plain one")
    changed = copy.deepcopy(unet)
    for site in _sites(changed):
        chosen = _channels(site, share, seed)
        for gain in site.gains:
            gain[chosen] *= factor
        for weight in site.consumers:
            weight[:, chosen] /= factor
    return changed


def _channels(site: Site, share: float, seed: int) -> Tensor:
    channels = len(site.gains[0])
    random = generator("outlier-channels", seed, site.name)
    return torch.randperm(channels, generator=random)[: max(1, round(share * channels))]


def _sites(unet: nn.Module) -> Iterator[Site]:
    for name, module in list(unet.named_modules()):  # a site may put a module in
        if isinstance(module, BasicTransformerBlock):
            yield from _transformer_sites(name, module)
        elif isinstance(module, SpatialTransformer):
            consumers = (module.proj_in.weight,)
            yield Site(f"{name}.norm", (module.norm.weight, module.norm.bias), consumers)
        elif isinstance(module, ResBlock):
            yield _activation_site(f"{name}.in_layers.1", module.in_layers)
            yield _activation_site(f"{name}.out_layers.1", module.out_layers)


def _transformer_sites(name: str, block: BasicTransformerBlock) -> Iterator[Site]:
    attention, cross = block.attn1, block.attn2
    projection = block.get_submodule("ff.net.0.proj")
    back = block.get_submodule("ff.net.2")
    assert isinstance(projection, nn.Linear)
    assert isinstance(back, nn.Linear)
    readers = (
        ("norm1", block.norm1, (attention.to_q, attention.to_k, attention.to_v)),
        ("norm2", block.norm2, (cross.to_q,)),  # its keys and values read the context
        ("norm3", block.norm3, (projection,)),
    )
    for norm_name, norm, layers in readers:
        weights = tuple(layer.weight for layer in layers)
        yield Site(f"{name}.{norm_name}", (norm.weight, norm.bias), weights)
    value = slice(projection.out_features // 2)  # the other half, the gate, goes through a GELU
    gains = (projection.weight[value], projection.bias[value])
    yield Site(f"{name}.ff.net.0.proj", gains, (back.weight,))


def _activation_site(name: str, layers: nn.Sequential) -> Site:
    convolution = layers[-1]
    assert isinstance(convolution, nn.Conv2d)
    raised = RaisedSiLU(convolution.in_channels).to(convolution.weight)
    layers[1] = raised.train(layers[1].training)
    return Site(name, (raised.gain,), (convolution.weight,))
