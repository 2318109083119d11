"""Reading a part's structure from CompVis' configuration keys, strictly."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from hqdm_bench.common.errors import BenchError

__all__ = ["checked_options"]


def checked_options(
    part: str,
    given: Mapping[str, Any],
    config: type[Any],
    fixed: Mapping[str, Any],
    without_effect: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Arguments for a configuration dataclass; lists become tuples.

    Args:
        part: name of the part, for errors.
        given: the keys as written.
        config: dataclass whose fields are the keys that matter.
        fixed: switches of the reference implementation, accepted at this one value only.
        without_effect: keys that are accepted and dropped.

    Raises:
        BenchError: an unknown key, a missing one, or a fixed one at another value.
    """
    known = {entry.name for entry in fields(config)}
    required = {entry.name for entry in fields(config) if entry.default is MISSING}
    for key, value in given.items():
        if key not in known | fixed.keys() | without_effect:
            allowed = ", ".join(sorted(known | fixed.keys() | without_effect))
            raise BenchError(f"unknown key '{part}.{key}'; allowed: {allowed}")
        if key in fixed and value != fixed[key]:
            raise BenchError(f"{part}.{key} is {value!r}; only {fixed[key]!r} is supported")
    if missing := sorted(required - given.keys()):
        raise BenchError(f"{part} lacks the key(s) {', '.join(missing)}")
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
        if key in known
    }
