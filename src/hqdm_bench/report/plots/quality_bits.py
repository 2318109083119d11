"""Figure `quality_bits`: quality of every method over the bit-widths of a suite."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.plots.facets import (
    fit_y_axis,
    full_precision_line,
    interval_note,
    legend_above,
    mark,
)
from hqdm_bench.report.plots.levels import Curve, ModelCurves, Point
from hqdm_bench.report.plots.looks import Look, method_looks
from hqdm_bench.report.plots.style import (
    COLUMN_WIDTH,
    RULE,
    TEXT_WIDTH,
    new_figure,
    note_below,
    save_figure,
    styled,
)
from hqdm_bench.report.quantities import quantity

__all__ = ["bit_axis", "draw_quality_bits"]

ROW_HEIGHT, FRAME_HEIGHT = 1.15, 0.95  # inches
GROUP_GAP = 0.5  # more than from one width to the next
DODGE = 0.14  # between neighbouring methods


def draw_quality_bits(
    models: Sequence[ModelCurves], keys: Sequence[str], extractor: str, stem: Path
) -> tuple[Path, Path]:
    """One column a model, one row a quantity; activation bits fall to the right, in groups.

    Args:
        models: left to right.
        keys: quantities, top to bottom.
        extractor: behind the features, for the heads.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not models or not keys or not all(model.students for model in models):
        raise BenchError(f"{stem.name} has nothing to show; give it models, methods and metrics")
    titles = {m: curve.title for model in models for m, curve in model.students.items()}
    looks = method_looks(list(titles))
    with styled():
        width = COLUMN_WIDTH if len(models) == 1 else TEXT_WIDTH
        figure = new_figure(width, FRAME_HEIGHT + ROW_HEIGHT * len(keys))
        counts = [len(_widths(model)) for model in models]
        grid = figure.subplots(
            len(keys), len(models), squeeze=False, sharex="col", width_ratios=counts
        )
        for (row, key), (column, model) in itertools.product(enumerate(keys), enumerate(models)):
            _draw_panel(grid[row, column], model, key, looks)
        for axes, model in zip(grid[0], models, strict=True):
            axes.set_title(model.title)
        for axes, key in zip(grid[:, 0], keys, strict=True):
            axes.set_ylabel(quantity(key).head(extractor).replace(" (", "\n("))
        figure.align_ylabels(grid[:, 0])
        found = [
            p.levels[key]
            for model in models
            for curve in model.students.values()
            for p in curve.points
            for key in keys
        ]
        legend_above(figure, titles, looks)
        note_below(figure, interval_note(found))
        return save_figure(figure, stem)


def bit_axis(widths: Iterable[Bits]) -> dict[Bits, float]:
    """Where each bit-width stands: activations with many bits first, then weights, in groups.

    Returns:
        Bit-width to position, neighbours of one activation width 1 apart and others further.
    """
    order = sorted(set(widths), key=lambda bits: (-bits.activation, -bits.weight))
    places: dict[Bits, float] = {}
    x = 0.0
    for before, bits in zip([None, *order], order, strict=False):
        if before is not None:
            x += 1.0 if before.activation == bits.activation else 1.0 + GROUP_GAP
        places[bits] = x
    return places


def _draw_panel(axes: Axes, model: ModelCurves, key: str, looks: Mapping[str, Look]) -> None:
    places, students = bit_axis(_widths(model)), model.students
    for number, (method, curve) in enumerate(students.items()):
        shift = DODGE * (number - (len(students) - 1) / 2)
        own = {bits: x + shift for bits, x in places.items()}
        _draw_curve(axes, curve, key, own, looks[method])
    found = [p.levels[key] for curve in students.values() for p in curve.points]
    fit_y_axis(axes, found)
    full_precision_line(axes, model.full_precision(key))
    for left, right in itertools.pairwise(places.items()):
        if left[0].activation != right[0].activation:
            axes.axvline((left[1] + right[1]) / 2, color=RULE, linewidth=0.6, zorder=0)
    ticks = [f"W{bits.weight}\nA{bits.activation}" for bits in places]
    axes.set_xticks(list(places.values()), ticks)
    axes.set_xlim(-0.6, max(places.values()) + 0.6)


def _draw_curve(
    axes: Axes, curve: Curve, key: str, places: Mapping[Bits, float], look: Look
) -> None:
    """Full lines join widths of one activation width, faint ones lead on to the next."""
    points: list[Point] = sorted(curve.points, key=lambda point: places[point.bits])
    for left, right in itertools.pairwise(points):
        alike = left.bits.activation == right.bits.activation
        ends = [left.levels[key].mean, right.levels[key].mean]
        xs = [places[left.bits], places[right.bits]]
        width, alpha = (1.3, 1.0) if alike else (0.7, 0.45)
        axes.plot(xs, ends, **look.line, linewidth=width, alpha=alpha)
    for point in points:
        mark(axes, places[point.bits], point.levels[key], look)


def _widths(model: ModelCurves) -> set[Bits]:
    return {point.bits for curve in model.students.values() for point in curve.points}
