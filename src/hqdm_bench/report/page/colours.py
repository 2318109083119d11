"""Colours of a page: the figures' own, and lighter ones for a dark background."""

from collections.abc import Iterable
from dataclasses import dataclass

from hqdm_bench.report.plots.looks import method_looks
from hqdm_bench.report.plots.style import AFTER, BEFORE, COLOURS

__all__ = ["MethodLook", "looks_of", "palette"]

LIGHTER = 0.3  # share of white mixed in on a dark background, more where that is too little
BRIGHT = 0.22  # relative luminance that stands out from it
STEP = 0.05


@dataclass(frozen=True)
class MethodLook:
    """A colour by its name in the palette, and a pattern for ``stroke-dasharray`` or nothing."""

    name: str
    dashes: str


def palette() -> dict[str, tuple[str, str]]:
    """Name to the colour on a light and on a dark background."""
    colours = COLOURS | {"before": BEFORE, "after": AFTER}
    return {name: (colour, _lighten(colour)) for name, colour in colours.items()}


def looks_of(methods: Iterable[str]) -> dict[str, MethodLook]:
    """The colour and dashes each method has in the figures as well."""
    names = {colour: name for name, colour in COLOURS.items()}
    return {
        method: MethodLook(names[look.colour], " ".join(f"{dash:g}" for dash in look.dashes))
        for method, look in method_looks(list(dict.fromkeys(methods))).items()
    }


def _lighten(colour: str) -> str:
    parts = tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
    share = LIGHTER
    while _luminance(_mixed(parts, share)) < BRIGHT:
        share += STEP
    return "#" + "".join(f"{part:02x}" for part in _mixed(parts, share))


def _mixed(parts: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round(part + share * (255 - part)) for part in parts)


def _luminance(parts: tuple[int, ...]) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    red, green, blue = ((part / 255) ** 2.2 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
