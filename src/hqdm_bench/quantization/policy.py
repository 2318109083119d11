"""Which layers are quantized, and how."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from hqdm_bench.common.errors import BenchError

__all__ = ["POLICIES", "Role", "full", "official", "roles"]

Role = Literal["low_bit", "static_8bit", "full_precision"]
EXEMPT = ("skip", "op")


def official(module: nn.Module) -> dict[str, Role]:
    """Layers as EfficientDM and HQ-DM release them.

    Low-bit: every Conv2d and Linear whose own attribute name (the last part of its path) contains
    neither "skip" nor "op". Of these, the first three and the last in module order take 8 bits,
    fixed: in the latent diffusion UNets time_embed.0, time_embed.2, the input and the output
    convolution. Skip and downsampling convolutions and every Conv1d stay in full precision.

    Returns:
        Name to role, in module order, for every Conv1d, Conv2d and Linear.

    Raises:
        BenchError: fewer than five layers qualify.
    """
    roles: dict[str, Role] = {}
    for name, layer in _layers(module):
        own_name = name.rpartition(".")[2]
        exempt = isinstance(layer, nn.Conv1d) or any(part in own_name for part in EXEMPT)
        roles[name] = "full_precision" if exempt else "low_bit"
    quantized = [name for name, role in roles.items() if role == "low_bit"]
    if len(quantized) < 5:
        raise BenchError(
            f"the official policy keeps four special layers and needs at least five; "
            f"{type(module).__name__} has {len(quantized)} to quantize"
        )
    for name in (*quantized[:3], quantized[-1]):
        roles[name] = "static_8bit"
    return roles


def full(module: nn.Module) -> dict[str, Role]:
    """Every Conv1d, Conv2d and Linear low-bit, without exception."""
    return {name: "low_bit" for name, _ in _layers(module)}


POLICIES: dict[str, Callable[[nn.Module], dict[str, Role]]] = {"official": official, "full": full}


def roles(policy: str, module: nn.Module) -> dict[str, Role]:
    """Apply a policy by name.

    Raises:
        BenchError: no policy has this name.
    """
    if policy not in POLICIES:
        raise BenchError(f"layer policy '{policy}' is unknown; choose one of {sorted(POLICIES)}")
    return POLICIES[policy](module)


def _layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
