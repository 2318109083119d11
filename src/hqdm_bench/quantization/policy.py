"""Which layers are quantized, and how.

A policy is one text, stored with every result::

    official; *.attn1.to_q = full_precision; down_blocks.*.conv_shortcut = static_8bit

A base (`POLICIES`), then any number of rules ``PATTERN = ROLE``. A pattern is a shell pattern on
the dotted name of a layer, case and all; ``*`` also spans dots. Later rules win.

Roles: ``low_bit``; ``weight_only``, the weight at the low bits and the input exact; ``input_8bit``,
the weight at the low bits and the input at 8; ``static_8bit``, both at 8 bits, fixed;
``full_precision``.

Some layers cannot be quantized (`obstacle`). A base leaves them in full precision; a rule that asks
for anything else is an error.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.policies import POLICIES, Role
from hqdm_bench.quantization.quantizable import obstacle

__all__ = ["POLICY_SAYS", "check_policy", "roles"]

*_FIRST, _LAST = POLICIES
# What may be written, for schemas and messages.
POLICY_SAYS = f"{', '.join(_FIRST)} or {_LAST}, then rules such as '; *.to_q = full_precision'"


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
