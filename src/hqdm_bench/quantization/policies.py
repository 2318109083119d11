"""Named layer policies: what each released code quantizes, and how.

They go by the order, the type and the own name (the last part of the path) of layers, as the codes
do, and so apply to any module. Positions are counted over the layers that qualify, in module order;
what cannot be quantized (`obstacle`) never does.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Literal

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.quantizable import LAYERS, obstacle
from hqdm_bench.quantization.temporal_block import TEMPORAL

__all__ = ["POLICIES", "Role", "dmq", "full", "official", "ptqd", "quest", "tfmq"]

Role = Literal["low_bit", "weight_only", "input_8bit", "static_8bit", "full_precision"]

EXEMPT = ("skip", "op")


def full(module: nn.Module) -> dict[str, Role]:
    """Every layer low-bit that can be, without exception; the others in full precision.

    So is Q-Diffusion (docs/methods.md).
    """
    return {
        name: "full_precision" if obstacle(module, name) else "low_bit"
        for name, layer in module.named_modules()
        if isinstance(layer, LAYERS)
    }


def official(module: nn.Module) -> dict[str, Role]:
    """Layers as EfficientDM and HQ-DM release them.

    Low-bit: every Conv2d and Linear whose own attribute name (the last part of its path) contains
    neither "skip" nor "op". Of these, the first three and the last in module order take 8 bits,
    fixed: in the latent diffusion UNets time_embed.0, time_embed.2, the input and the output
    convolution. Skip and downsampling convolutions, every Conv1d and what cannot be quantized stay
    in full precision. On other models only the names decide: diffusers calls its skip convolutions
    conv_shortcut, and they are low-bit.

    Returns:
        Name to role, in module order, for every layer that holds weights (`LAYERS`).

    Raises:
        BenchError: fewer than five layers qualify.
    """
    found = _without(module, EXEMPT)
    return _with_special("official", module, found, {"static_8bit": (0, 1, 2, -1)})


def ptqd(module: nn.Module) -> dict[str, Role]:
    """Layers as PTQD releases them: `official`, but the second is low-bit.

    In the latent diffusion UNets time_embed.0, the input and the output convolution take 8 bits.

    Raises:
        BenchError: fewer than four layers qualify.
    """
    return _with_special("ptqd", module, _without(module, EXEMPT), {"static_8bit": (0, 2, -1)})


def tfmq(module: nn.Module) -> dict[str, Role]:
    """Layers as TFMQ-DM releases them.

    Conv2d and Linear whose own name contains none of "skip", "op" and "shortcut", and that are not
    the "conv" of a "downsample". Of these the first, the third and the last stay in full precision,
    and the second and the fourth have an exact input: in the latent diffusion UNets time_embed.0,
    the input and the output convolution, then time_embed.2 and the first convolution of the first
    residual block.

    Raises:
        BenchError: fewer than six layers qualify.
    """
    found = _without(module, (*EXEMPT, "shortcut"))
    for name in found:
        if name.split(".")[-2:] == ["downsample", "conv"]:
            found[name] = "full_precision"
    special: dict[Role, tuple[int, ...]] = {"full_precision": (0, 2, -1), "weight_only": (1, 3)}
    return _with_special("tfmq", module, found, special)


def dmq(module: nn.Module) -> dict[str, Role]:
    """Layers as DMQ releases them.

    Every Conv1d, Conv2d and Linear but the time embedding, its projections in the residual blocks,
    and the first and last of the rest: the input and the output convolution.

    Raises:
        BenchError: fewer than three layers qualify.
    """
    found = full(module)
    for name in found:
        if not TEMPORAL.isdisjoint(name.split(".")):
            found[name] = "full_precision"
    return _with_special("dmq", module, found, {"full_precision": (0, -1)})


def quest(module: nn.Module) -> dict[str, Role]:
    """Layers as QuEST releases them: all low-bit, two of them with 8-bit inputs.

    These are the first convolution (the first layer where there is none) and the last layer, in
    the latent diffusion UNets the input and the output convolution.

    Raises:
        BenchError: fewer than three layers qualify.
    """
    found = full(module)
    names = [name for name, role in found.items() if role == "low_bit"]
    convolutions = (nn.Conv1d, nn.Conv2d)
    first = next(
        (
            place
            for place, name in enumerate(names)
            if isinstance(module.get_submodule(name), convolutions)
        ),
        0,
    )
    return _with_special("quest", module, found, {"input_8bit": (first, -1)})


POLICIES: dict[str, Callable[[nn.Module], dict[str, Role]]] = {
    "official": official,
    "full": full,
    "ptqd": ptqd,
    "tfmq": tfmq,
    "dmq": dmq,
    "quest": quest,
}


def _without(module: nn.Module, parts: Collection[str]) -> dict[str, Role]:
    """Every Conv2d and Linear low-bit whose own name contains none of some parts."""
    found = full(module)
    for name in found:
        own_name = name.rpartition(".")[2]
        conv1d = isinstance(module.get_submodule(name), nn.Conv1d)
        if conv1d or any(part in own_name for part in parts):
            found[name] = "full_precision"
    return found


def _with_special(
    policy: str, module: nn.Module, found: dict[str, Role], special: Mapping[Role, tuple[int, ...]]
) -> dict[str, Role]:
    """Give the low-bit layers at some positions another role."""
    names = [name for name, role in found.items() if role == "low_bit"]
    places = {place: role for role, at in special.items() for place in at}
    if len(names) <= len(places):
        raise BenchError(
            f"the {policy} policy keeps {len(places)} special layers and needs at least "
            f"{len(places) + 1}; {type(module).__name__} has {len(names)} to quantize"
        )
    return found | {names[place]: role for place, role in places.items()}
