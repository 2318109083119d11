"""Figure `quality_cost`: quality against size in bytes and against bit operations."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.estimates import Estimate
from hqdm_bench.report.footprint import Footprint
from hqdm_bench.report.plots.facets import (
    fit_y_axis,
    full_precision_line,
    interval_note,
    legend_above,
    mark,
)
from hqdm_bench.report.plots.labels import Box, Pair, free_sides
from hqdm_bench.report.plots.levels import ModelCurves
from hqdm_bench.report.plots.looks import Look, method_looks
from hqdm_bench.report.plots.style import (
    MUTED,
    TEXT_WIDTH,
    new_figure,
    note_below,
    save_figure,
    styled,
)
from hqdm_bench.report.quantities import Quantity, quantity

__all__ = ["draw_quality_cost", "pareto_front"]

ROW_HEIGHT, FRAME_HEIGHT = 1.75, 0.85  # inches
PANEL = (205.0, 100.0)  # points within the axes of one panel, roughly
MARGIN = 0.2  # share of the span of costs, on either side: room for a name
DODGE = 0.012  # share of the axis between methods, which often cost the same
STROKE = 1.0  # points: half the room of a line
MARKER, NAME = (5.0, 5.0), (22.0, 8.0)  # points: sizes of a marker and of a name such as W4A4
FRONT: dict[str, Any] = {"color": MUTED, "linewidth": 1.0, "linestyle": "-", "alpha": 0.7}


@dataclass(frozen=True)
class Cost:
    """A cost axis: its name and how to read it off a student."""

    name: str
    value: Callable[[Footprint], float]


COSTS = (
    Cost("codes, grids, tables (MB)", lambda found: found.packed_bytes / 1e6),
    Cost("operations of one pass (giga-BOPs)", lambda found: found.bops / 1e9),
)


@dataclass(frozen=True)
class Spot:
    """A student in one panel.

    Attributes:
        cost: as it is.
        x: where it is drawn, beside the other methods of the same cost.
    """

    method: str
    bits: Bits
    cost: float
    x: float
    found: Estimate


def draw_quality_cost(
    models: Sequence[ModelCurves], keys: Sequence[str], extractor: str, stem: Path
) -> tuple[Path, Path]:
    """Left against size, right against bit operations; one row a model and quantity.

    Args:
        models: top to bottom.
        keys: quantities of each model.
        extractor: behind the features, for the heads.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not models or not keys or not all(model.students for model in models):
        raise BenchError(f"{stem.name} has nothing to show; give it models, methods and metrics")
    titles = {m: curve.title for model in models for m, curve in model.students.items()}
    looks, rows = method_looks(list(titles)), list(itertools.product(models, keys))
    with styled():
        figure = new_figure(TEXT_WIDTH, FRAME_HEIGHT + ROW_HEIGHT * len(rows))
        grid = figure.subplots(len(rows), 2, squeeze=False, sharey="row", sharex=False)
        found: list[Estimate] = []
        for pair, (model, key) in zip(grid, rows, strict=True):
            for axes, cost in zip(pair, COSTS, strict=True):
                spots = _spots(model, key, cost)
                full = model.full_precision(key)
                full_precision_line(axes, full, named=cost is COSTS[-1])
                _draw_panel(axes, spots, quantity(key), looks, full)
                found += [spot.found for spot in spots]
            pair[0].set_ylabel(quantity(key).head(extractor))
            pair[0].set_title(model.title, loc="left")
        for axes, cost in zip(grid[-1], COSTS, strict=True):
            axes.set_xlabel(cost.name)
        front = Line2D([], [], **FRONT, label="Pareto front of the means")
        legend_above(figure, titles, looks, [front])
        note_below(figure, interval_note(found))
        return save_figure(figure, stem)


def pareto_front(points: Sequence[tuple[float, float]], higher_is_better: bool) -> list[int]:
    """Points that no other one beats in both coordinates, from cheap to dear.

    Args:
        points: (cost, quality).
        higher_is_better: direction of the quality; cost is better when lower.

    Returns:
        Their places; of equal points the first.
    """
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or sign * points[i][1] < sign * points[front[-1]][1]:
            front.append(i)
    return front


def _spots(model: ModelCurves, key: str, cost: Cost) -> list[Spot]:
    costs = [
        cost.value(point.cost)
        for curve in model.students.values()
        for point in curve.points
        if point.cost is not None
    ]
    step = DODGE * (max(costs) - min(costs) or 1.0)
    middle = (len(model.students) - 1) / 2
    return [
        Spot(method, point.bits, value, value + step * (number - middle), point.levels[key])
        for number, (method, curve) in enumerate(model.students.items())
        for point in curve.points
        if point.cost is not None
        for value in (cost.value(point.cost),)
    ]


def _draw_panel(
    axes: Axes,
    spots: Sequence[Spot],
    kind: Quantity,
    looks: Mapping[str, Look],
    full: float | None,
) -> None:
    for spot in spots:
        mark(axes, spot.x, spot.found, looks[spot.method])
    front = pareto_front([(s.cost, s.found.mean) for s in spots], kind.higher_is_better)
    corners = [(spots[i].x, spots[i].found.mean) for i in front]
    axes.plot(*zip(*corners, strict=True), drawstyle="steps-post", zorder=1, **FRONT)
    fit_y_axis(axes, [spot.found for spot in spots])
    low, high = min(spot.x for spot in spots), max(spot.x for spot in spots)
    reach = high - low or 1.0
    limits = low - MARGIN * reach, high + MARGIN * reach
    axes.set_xlim(*limits)
    axes.locator_params(axis="x", nbins=6)
    lines = [_interval(axes, spot) for spot in spots]
    for (x, y), (next_x, next_y) in itertools.pairwise(corners):
        lines.append(_stroke(axes, (x, y), (next_x, y)))
        lines.append(_stroke(axes, (next_x, y), (next_x, next_y)))
    if full is not None:
        lines.append(_stroke(axes, (limits[0], full), (limits[1], full)))
    _name_widths(axes, spots, kind.higher_is_better, lines)


def _name_widths(
    axes: Axes, spots: Sequence[Spot], higher_is_better: bool, lines: Sequence[Box]
) -> None:
    """Each bit-width once, beside the marker of its best method."""
    sign = -1.0 if higher_is_better else 1.0
    best: dict[Bits, Spot] = {}
    for spot in sorted(spots, key=lambda spot: sign * spot.found.mean):
        best.setdefault(spot.bits, spot)
    taken = [Box.around(_place(axes, spot.x, spot.found.mean), MARKER) for spot in spots]
    places = [_place(axes, spot.x, spot.found.mean) for spot in best.values()]
    sides = free_sides(places, NAME, [*taken, *lines], PANEL)
    for (bits, spot), side in zip(best.items(), sides, strict=True):
        axes.annotate(
            bits.label,
            (spot.x, spot.found.mean),
            side,
            textcoords="offset points",
            ha="center",
            va="center",
        )


def _place(axes: Axes, x: float, y: float) -> Pair:
    """Where a value stands, in points from the lower left corner of its panel, roughly."""
    share = (axes.transScale + axes.transLimits).transform((x, y))
    return PANEL[0] * float(share[0]), PANEL[1] * float(share[1])


def _interval(axes: Axes, spot: Spot) -> Box:
    """The room of a student's interval."""
    low = spot.found.mean if spot.found.low is None else spot.found.low
    high = spot.found.mean if spot.found.high is None else spot.found.high
    return _stroke(axes, (spot.x, low), (spot.x, high))


def _stroke(axes: Axes, start: Pair, end: Pair) -> Box:
    """The room of a straight line along one axis."""
    ends = (_place(axes, *start), _place(axes, *end))
    (left, right), (bottom, top) = (sorted(values) for values in zip(*ends, strict=True))
    return Box(left - STROKE, bottom - STROKE, right + STROKE, top + STROKE)
