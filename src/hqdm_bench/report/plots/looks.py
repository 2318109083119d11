"""What a method looks like: the same colour, marker and line in every figure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hqdm_bench.report.plots.style import COLOURS

__all__ = ["Look", "method_looks"]

Dashes = tuple[float, ...]
SOLID: Dashes = ()


@dataclass(frozen=True)
class Look:
    """A curve's colour, marker and dashes; either of the last two tells methods apart in grey."""

    colour: str
    marker: str
    dashes: Dashes = SOLID

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a curve without markers."""
        return {"color": self.colour, "linestyle": (0, self.dashes) if self.dashes else "-"}

    @property
    def curve(self) -> dict[str, Any]:
        """Arguments of a curve with markers."""
        edge = {"markeredgecolor": self.colour, "markeredgewidth": 0.9}
        return {**self.line, "marker": self.marker, "markersize": 4, **edge}


FIXED = {
    "fp": Look(COLOURS["grey"], "*", (1, 1)),
    "efficientdm": Look(COLOURS["vermillion"], "s", (5, 1.5)),
    "hqdm": Look(COLOURS["blue"], "o"),
    "hqdm-plus": Look(COLOURS["green"], "D", (6, 1.5, 1, 1.5)),
    "double-hadamard": Look(COLOURS["purple"], "^", (2, 1)),
    "qdiffusion": Look(COLOURS["orange"], "v"),
    "ptqd": Look(COLOURS["sky"], "P", (5, 1.5)),
    "tfmq": Look(COLOURS["orange"], ">", (2, 1)),
    "quest": Look(COLOURS["sky"], "X", (6, 1.5, 1, 1.5)),
    "dmq": Look(COLOURS["purple"], "<", (6, 1.5, 1, 1.5)),
    "rtn": Look(COLOURS["grey"], "d", (2, 1)),
}
# For methods that are not above, in the order they come.
SPARE = (
    Look(COLOURS["grey"], "p"),
    Look(COLOURS["green"], "h", (2, 1)),
    Look(COLOURS["vermillion"], "8", (2, 1)),
)
# Marker and dashes of variants, `hqdm-k3` being one of `hqdm`; their colour is their family's.
VARIANTS: tuple[tuple[str, Dashes], ...] = (
    ("v", (2, 1)),
    ("^", (6, 1.5, 1, 1.5)),
    ("P", (4, 1.5)),
    ("X", (1, 1)),
    ("<", (6, 1.5, 1, 1.5, 1, 1.5)),
    (">", (9, 1.5)),
)


def method_looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look per method, in the given order.

    Args:
        methods: catalogue names. Those of the paper's tables and ours have one look everywhere, a
            variant has its family's colour, and the others take spare looks in the order they come.
    """
    found: dict[str, Look] = {}
    variants: dict[str, int] = {}
    spare = 0
    for method in methods:
        family = _family(method)
        if family == method:
            found[method] = FIXED[method]
        elif family is not None:
            place = variants.setdefault(family, 0)
            variants[family] += 1
            found[method] = _variant(FIXED[family], place)
        else:
            found[method] = SPARE[spare % len(SPARE)]
            spare += 1
    return found


def _family(method: str) -> str | None:
    """The fixed method a name belongs to: itself, or the longest one it goes on from."""
    heads = [name for name in FIXED if method == name or method.startswith(f"{name}-")]
    return max(heads, key=len, default=None)


def _variant(look: Look, place: int) -> Look:
    marker, dashes = VARIANTS[place % len(VARIANTS)]
    return replace(look, marker=marker, dashes=dashes)
