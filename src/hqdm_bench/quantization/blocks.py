"""Reconstruction units: the parts of a network whose outputs a calibration matches one by one.

BRECQ's granularity, which Q-Diffusion and its descendants take for diffusion models: residual
blocks, transformer blocks and attention blocks, and every other layer by itself.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.composite import CompositeLayer
from hqdm_bench.quantization.fused_attention import QuantizedProcessor
from hqdm_bench.quantization.layers import QuantizedLayer

__all__ = ["ALL_BLOCKS", "BLOCKS", "Kind", "Unit", "find_units", "in_call_order"]

Kind = Literal["residual", "transformer", "attention", "temporal", "layer"]

# What the children of a block are called by CompVis, then by diffusers. The names tell the blocks
# apart without their classes, so that a network of another package has units, too.
BLOCKS: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("residual", frozenset({"in_layers", "out_layers"})),
    ("residual", frozenset({"conv1", "conv2"})),
    ("transformer", frozenset({"attn1", "ff"})),
    ("attention", frozenset({"qkv", "proj_out"})),
    ("attention", frozenset({"to_q", "to_k", "to_v"})),
)

ALL_BLOCKS: tuple[Kind, ...] = ("residual", "transformer", "attention")


@dataclass(frozen=True)
class Unit:
    """A part of a network.

    Attributes:
        name: dotted name of its module.
        kind: of block, or a single ``layer``, which may be a composite one; a ``temporal`` one is
            a `TemporalBlock`.
        layers: dotted names of the layers in it that are reconstructed, in module order; also of
            the attentions whose products are.
    """

    name: str
    kind: Kind
    layers: tuple[str, ...]


def find_units(
    network: nn.Module, layers: Collection[str], blocks: Collection[Kind] = ALL_BLOCKS
) -> list[Unit]:
    """Units that together hold each of the layers once, in module order.

    The outermost block wins: the attention within a transformer block is part of it. An attention
    of diffusers whose products are asked for is always a block, for its processor is no module in
    full precision. A block of which no layer is asked for is no unit. A composite layer stands for
    the layers it is made of, and is one unit where no block holds it.

    Args:
        network: whose units; the layers may already be quantized ones.
        layers: dotted names of what is reconstructed.
        blocks: kinds of blocks that are units as a whole; the layers of others go one by one.

    Raises:
        BenchError: the network has no layer of a name.
    """
    wanted = set(layers)
    missing = sorted(wanted - {name for name, _ in network.named_modules()})
    if missing:
        raise BenchError(f"{type(network).__name__} has no layer '{missing[0]}' to reconstruct")
    for name in layers:
        parts = network.get_submodule(name)
        if isinstance(parts, CompositeLayer):
            wanted.remove(name)
            wanted.update(_quantized(parts, name))
    return list(_walk(network, "", wanted, frozenset(blocks)))


def _quantized(module: nn.Module, name: str) -> list[str]:
    found = module.named_modules(prefix=name)
    return [path for path, layer in found if isinstance(layer, QuantizedLayer)]


def _walk(
    module: nn.Module, name: str, wanted: set[str], blocks: frozenset[Kind]
) -> Iterator[Unit]:
    """Units of a module, taking their layers off ``wanted``: a module may be in two places."""
    if name in wanted:
        wanted.remove(name)
        yield Unit(name, "layer", (name,))
        return
    children = dict(module.named_children())
    found = (kind for kind, parts in BLOCKS if parts <= children.keys() and kind in blocks)
    kind = next(found, None)
    if kind is None and _products_within(children, name, wanted):
        kind = "attention"
    if isinstance(module, CompositeLayer):
        kind = "layer"
    if kind is None:
        for own_name, child in children.items():
            path = f"{name}.{own_name}" if name else own_name
            yield from _walk(child, path, wanted, blocks)
        return
    inside = tuple(path for path, _ in module.named_modules(prefix=name) if path in wanted)
    if inside:
        wanted.difference_update(inside)
        yield Unit(name, kind, inside)


def _products_within(children: Mapping[str, nn.Module], name: str, wanted: set[str]) -> bool:
    """Whether a processor among the children has products that are reconstructed."""
    return any(
        path in wanted
        for own, child in children.items()
        if isinstance(child, QuantizedProcessor)
        for path, _ in child.named_modules(prefix=f"{name}.{own}" if name else own)
    )


def in_call_order(network: nn.Module, units: Iterable[Unit], run: Callable[[], Any]) -> list[Unit]:
    """Units in the order in which a call of the network reaches them.

    Args:
        network: whose units.
        units: in any order.
        run: calls the network.

    Raises:
        BenchError: the call does not reach a unit.
    """
    units, reached = list(units), dict[str, None]()
    hooks = [
        network.get_submodule(unit.name).register_forward_pre_hook(
            lambda *_, name=unit.name: reached.setdefault(name)
        )
        for unit in units
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for unit in units:
        if unit.name not in reached:
            raise BenchError(
                f"no call ran '{unit.name}'; leave it in full precision or give a call that does"
            )
    order = {name: place for place, name in enumerate(reached)}
    return sorted(units, key=lambda unit: order[unit.name])
