"""Which layers are quantized, and how.

A policy is one text, stored with every result::

    official; *.attn1.to_q = full_precision; down_blocks.*.conv_shortcut = static_8bit

A base (`official` or `full`), then any number of rules ``PATTERN = ROLE``. A pattern is a shell
pattern on the dotted name of a layer, case and all; ``*`` also spans dots. Later rules win.

Some layers cannot be quantized (`obstacle`). A base leaves them in full precision; a rule that asks
for anything else is an error.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from torch import nn

from hqdm_bench.common.errors import BenchError

__all__ = [
    "LAYERS",
    "POLICIES",
    "Role",
    "check_policy",
    "full",
    "obstacle",
    "official",
    "roles",
]

Role = Literal["low_bit", "static_8bit", "full_precision"]
EXEMPT = ("skip", "op")
QUANTIZABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*QUANTIZABLE, nn.Conv3d, *TRANSPOSED, nn.MultiheadAttention)
# These hand the weights of their children to fused functions.
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


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
    found = full(module)
    for name in found:
        own_name = name.rpartition(".")[2]
        conv1d = isinstance(module.get_submodule(name), nn.Conv1d)
        if conv1d or any(part in own_name for part in EXEMPT):
            found[name] = "full_precision"
    quantized = [name for name, role in found.items() if role == "low_bit"]
    if len(quantized) < 5:
        raise BenchError(
            f"the official policy keeps four special layers and needs at least five; "
            f"{type(module).__name__} has {len(quantized)} to quantize"
        )
    for name in (*quantized[:3], quantized[-1]):
        found[name] = "static_8bit"
    return found


def full(module: nn.Module) -> dict[str, Role]:
    """Every layer low-bit that can be, without exception; the others in full precision."""
    return {
        name: "full_precision" if obstacle(module, name) else "low_bit"
        for name, layer in module.named_modules()
        if isinstance(layer, LAYERS)
    }


POLICIES: dict[str, Callable[[nn.Module], dict[str, Role]]] = {"official": official, "full": full}


def obstacle(module: nn.Module, name: str) -> str | None:
    """Why a layer cannot be quantized, or None if it can.

    Can be: Conv1d, Conv2d and Linear, one group and zero padding, that compute what torch's classes
    of that name do. Cannot be: anything else, and the layers directly inside nn.MultiheadAttention
    and nn.TransformerEncoderLayer, which read their weights without calling them.
    """
    layer, parent = module.get_submodule(name), module.get_submodule(name.rpartition(".")[0])
    if name and isinstance(parent, READERS):
        return f"its {type(parent).__name__} reads its weight without calling it"
    kind = next((kind for kind in QUANTIZABLE if isinstance(layer, kind)), None)
    if kind is None:
        return f"it is a {type(layer).__name__}; Conv1d, Conv2d and Linear can be"
    if "forward" in vars(layer) or type(layer).forward is not kind.forward:
        return f"its class {type(layer).__name__} has a forward of its own"
    if isinstance(layer, nn.Linear):
        return None
    if layer.groups != 1:
        return f"it has {layer.groups} groups"
    return None if layer.padding_mode == "zeros" else f"it pads with '{layer.padding_mode}'"


@dataclass(frozen=True)
class _Rule:
    pattern: str
    role: Role

    def __str__(self) -> str:
        return f"'{self.pattern} = {self.role}'"


def check_policy(policy: str) -> str:
    """Return a policy whose form is right; whether its patterns match shows on a module.

    Raises:
        BenchError: an unknown base or role, or a rule that is not ``PATTERN = ROLE``.
    """
    _parse(policy)
    return policy


def roles(policy: str, module: nn.Module) -> dict[str, Role]:
    """Apply a policy.

    Args:
        policy: see the head of this module.
        module: any module. A layer that it holds in several places goes by its first name.

    Returns:
        Name to role, in module order, for every layer that holds weights (`LAYERS`).

    Raises:
        BenchError: the form is wrong, a pattern matches no layer, a rule asks for a layer that
            cannot be quantized, or nothing is left to quantize.
    """
    base, rules = _parse(policy)
    found = POLICIES[base](module)
    asked: dict[str, _Rule] = {}
    for rule in rules:
        matched = [name for name in found if fnmatchcase(name, rule.pattern)]
        if not matched:
            raise BenchError(
                f"policy rule {rule} matches no layer of {type(module).__name__}; "
                + _near(rule.pattern, found)
            )
        asked.update(dict.fromkeys(matched, rule))
    for name, rule in asked.items():
        reason = None if rule.role == "full_precision" else obstacle(module, name)
        if reason:
            raise BenchError(
                f"policy rule {rule} asks for '{name}', which cannot be quantized: {reason}; "
                f"narrow the pattern or add '; {name} = full_precision' after it"
            )
        found[name] = rule.role
    if set(found.values()) <= {"full_precision"}:
        raise BenchError(
            f"policy '{policy}' leaves every layer of {type(module).__name__} in full precision; "
            "there is nothing to quantize"
        )
    return found


def _parse(policy: str) -> tuple[str, list[_Rule]]:
    base, *rules = (part.strip() for part in policy.split(";"))
    if base not in POLICIES:
        raise BenchError(
            f"layer policy '{base}' is unknown; choose one of {sorted(POLICIES)}, then "
            "rules may follow: 'official; PATTERN = ROLE'"
        )
    return base, [_rule(text) for text in rules]


def _rule(text: str) -> _Rule:
    pattern, equals, role = (part.strip() for part in text.partition("="))
    if not (pattern and equals):
        raise BenchError(f"policy rule '{text}' is not of the form PATTERN = ROLE")
    for known in get_args(Role):
        if role == known:
            return _Rule(pattern, known)
    raise BenchError(
        f"policy rule '{text}': role is '{role}'; allowed: {', '.join(get_args(Role))}"
    )


def _near(pattern: str, names: Iterable[str]) -> str:
    """Parts of layer names that look like the pattern without its stars, or some whole names."""
    names, wanted = list(names), pattern.strip("*.")
    length = wanted.count(".") + 1
    parts = {
        ".".join(path[start : start + length])
        for path in (name.split(".") for name in names)
        for start in range(len(path) - length + 1)
    }
    close = difflib.get_close_matches(wanted, sorted(parts), n=3)
    if close:
        return f"did you mean {' or '.join(repr(part) for part in close)}?"
    return (
        f"its layers are called {', '.join(names[:3])}, ..., {names[-1]}"
        if names
        else "it has none"
    )
