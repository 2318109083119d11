"""Where a UNet concatenates: the layers that take two tensors in one, and the channel between them.

An output block takes concat([h, skip]). The boundary is the width of h, found from the widths of
the convolutions before it, without a call. The names of the parts tell the structure: CompVis' UNet
(``input_blocks``, ``middle_block``, ``output_blocks``) and diffusers' (``down_blocks``,
``mid_block``, ``up_blocks``).
"""

from collections.abc import Iterator
from typing import Literal

from torch import nn

__all__ = ["Split", "boundaries"]

Split = Literal["none", "skip", "all"]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
# Layers of a residual block that see the concatenated channels: its shortcut, its first layers.
SHORTCUTS = ("skip_connection", "conv_shortcut")
FIRST = ("in_layers", "conv1")


def boundaries(network: nn.Module, split: Split) -> dict[str, int]:
    """Layers whose input is a concatenation, with the channels of its first tensor.

    Args:
        network: in full precision. One of another structure has none, and a block whose width is
            not the sum of the two that are found is left out.
        split: ``skip``, shortcut convolutions only, as Q-Diffusion and DMQ release it; ``all``,
            the first convolution of the block, too; ``none``.
    """
    if split == "none":
        return {}
    names = SHORTCUTS if split == "skip" else (*SHORTCUTS, *FIRST)
    found: dict[str, int] = {}
    for block, hidden, skip in _blocks(network):
        for name in names:
            part = getattr(network.get_submodule(block), name, None)
            for path, layer in _convolutions(part, f"{block}.{name}"):
                if layer.in_channels == hidden + skip:
                    found[path] = hidden
    order = {name: place for place, (name, _) in enumerate(network.named_modules())}
    return dict(sorted(found.items(), key=lambda entry: order[entry[0]]))


def _blocks(network: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Names of the residual blocks of the way up, with the widths of both inputs."""
    children = dict(network.named_children())
    if {"input_blocks", "middle_block", "output_blocks"} <= children.keys():
        down = [[stage] for stage in children["input_blocks"].children()]
        middle = children["middle_block"]
        up = [
            (f"output_blocks.{place}.0", stage)
            for place, stage in enumerate(children["output_blocks"].children())
        ]
    elif {"conv_in", "down_blocks", "mid_block", "up_blocks"} <= children.keys():
        down = [[children["conv_in"]], *map(_outputs, children["down_blocks"].children())]
        middle = children["mid_block"]
        up = [
            (f"up_blocks.{place}.resnets.{number}", resnet)
            for place, block in enumerate(children["up_blocks"].children())
            for number, resnet in enumerate(getattr(block, "resnets", ()))
        ]
    else:
        return
    skips, width = [], 0
    for stage in (stage for stages in down for stage in stages):
        width = _width(stage, width)
        skips.append(width)
    width = _width(middle, width)
    for name, stage in up:
        if not skips:
            return
        yield name, width, skips.pop()
        width = _width(stage, width)


def _outputs(block: nn.Module) -> list[nn.Module]:
    """Parts of a diffusers down block whose outputs are kept for the way up."""
    parts = [getattr(block, name, None) for name in ("resnets", "downsamplers")]
    return [part for each in parts if each is not None for part in each.children()]


def _width(stage: nn.Module, before: int) -> int:
    """Channels after a stage: those of its last convolution; attention without one keeps them."""
    found = [layer.out_channels for _, layer in _convolutions(stage, "")]
    return found[-1] if found else before


def _convolutions(part: nn.Module | None, name: str) -> Iterator[tuple[str, nn.Conv1d | nn.Conv2d]]:
    if part is None:
        return
    for path, layer in part.named_modules(prefix=name):
        if isinstance(layer, CONVOLUTIONS):
            yield path, layer
