"""Names beside the curves and markers they belong to, instead of a legend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from matplotlib.axes import Axes

from hqdm_bench.report.plots.style import SMALL

__all__ = ["Box", "EndLabel", "Pair", "free_sides", "join_remarks", "label_ends", "spread"]

LINE = 1.25 * SMALL / 72  # inches a line of text needs
GAP = 4.0  # points between a marker's middle and a name beside it
Pair = tuple[float, float]


@dataclass(frozen=True)
class EndLabel:
    """Text at the right end of a curve.

    Attributes:
        y: where the curve ends, in data units.
        text: its name.
        colour: its colour.
    """

    y: float
    text: str
    colour: str


def label_ends(axes: Axes, labels: Sequence[EndLabel], height: float) -> None:
    """Write names to the right of the axes, each beside the end of its curve and none on another.

    Args:
        axes: with its scale and limits set.
        labels: one per curve.
        height: inches the axes will be high, roughly; decides how far lines keep apart.
    """
    if not labels:
        return
    ends = [_share(axes, label.y) for label in labels]
    for label, y in zip(labels, spread(ends, LINE / height), strict=True):
        axes.annotate(
            label.text,
            (1.0, y),
            (4, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            color=label.colour,
            annotation_clip=False,
        )


def join_remarks(remarks: Mapping[str, str]) -> str:
    """One remark for all panels, or each with the names of its panels where they differ."""
    panels: dict[str, list[str]] = {}
    for name, remark in remarks.items():
        panels.setdefault(remark, []).append(name)
    if len(panels) == 1:
        return next(iter(panels))
    return "; ".join(f"{', '.join(names)}: {remark}" for remark, names in panels.items())


def _share(axes: Axes, y: float) -> float:
    """Height of a value in the axes, 0 at the bottom and 1 at the top."""
    transform = axes.transScale + axes.transLimits
    return float(transform.transform((axes.get_xlim()[0], y))[1])


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Move values apart until neighbours are at least ``gap`` from each other.

    Runs of values that are too close are centred on their mean, so nothing moves further than it
    must.

    Args:
        values: in any order; the result is in the same one.
        gap: smallest distance.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    runs: list[tuple[float, int]] = []  # centre, members
    for i in order:
        centre, count = values[i], 1
        while runs and centre - runs[-1][0] < gap * (count + runs[-1][1]) / 2:
            below, members = runs.pop()
            centre = (centre * count + below * members) / (count + members)
            count += members
        runs.append((centre, count))
    placed = (
        centre + gap * (place - (count - 1) / 2) for centre, count in runs for place in range(count)
    )
    found = dict(zip(order, placed, strict=True))
    return [found[i] for i in range(len(values))]


@dataclass(frozen=True)
class Box:
    """A rectangle in points."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, middle: Pair, size: Pair) -> Self:
        """The rectangle of a size about a point."""
        (x, y), (width, height) = middle, size
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def overlap(self, other: Self) -> float:
        """Area both share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


def free_sides(places: Sequence[Pair], size: Pair, taken: Sequence[Box], panel: Pair) -> list[Pair]:
    """Which side of its marker each name takes: right if that is free, else the freest one.

    Args:
        places: of the markers, in points from the panel's lower left corner.
        size: of a name.
        taken: what names should not cover.
        panel: size of the panel, which names should not leave.

    Returns:
        From each marker to the middle of its name.
    """
    across, along = size[0] / 2 + GAP, size[1] / 2 + GAP
    sides = [(across, 0.0), (-across, 0.0), (0.0, -along), (0.0, along)]
    sides += [(x, y) for x in (across, -across) for y in (along, -along)]
    whole, boxes, chosen = Box(0.0, 0.0, *panel), list(taken), []
    for x, y in places:
        cost = {}
        for side in sides:
            name = Box.around((x + side[0], y + side[1]), size)
            outside = size[0] * size[1] - name.overlap(whole)
            cost[side] = outside + sum(name.overlap(box) for box in boxes)
        best = min(sides, key=cost.__getitem__)
        boxes.append(Box.around((x + best[0], y + best[1]), size))
        chosen.append(best)
    return chosen
