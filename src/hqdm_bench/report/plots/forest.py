"""Figure `differences`: effects of every method on its baseline, with intervals."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import BETTER, SAME, WORSE, Effect, Span
from hqdm_bench.report.plots.style import (
    BAD,
    DASHES,
    GOOD,
    INK,
    MUTED,
    SMALL,
    TEXT_WIDTH,
    new_figure,
    save_figure,
    styled,
)
from hqdm_bench.report.quantities import Quantity, quantity
from hqdm_bench.report.study import Group
from hqdm_bench.report.table_text import MINUS

__all__ = ["axis_limits", "draw_forest", "ratio_ticks"]

ROW_HEIGHT = 0.19  # inches
FRAME_HEIGHT = 1.05  # axis, heads and legend
FAR = 3.0  # an axis ends so many times as far from no change as its usual interval does

MARK = "†"

# Verdict -> colour, marker, face: told apart by shape as well as by colour.
LOOKS = {
    BETTER: (GOOD, "o", GOOD),
    WORSE: (BAD, "D", BAD),
    SAME: (MUTED, "o", "white"),
}


def draw_forest(
    groups: Sequence[Group], keys: Sequence[str], extractor: str, stem: Path
) -> tuple[Path, Path]:
    """One row a method, grouped by baseline; one panel a quantity with its line of no change.

    Args:
        groups: top to bottom.
        keys: quantities, left to right.
        extractor: behind the features, for the heads.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw, or a pair that cannot be compared.
    """
    if not groups or not keys:
        raise BenchError(f"{stem.name} has nothing to show; give it a metric and a comparison")
    with styled():
        figure = new_figure(TEXT_WIDTH, FRAME_HEIGHT + ROW_HEIGHT * _rows(groups))
        panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
        for axes, key in zip(panels, keys, strict=True):
            _draw_panel(axes, groups, quantity(key), extractor)
        _label_rows(panels[0], groups)
        _legend(figure, any(pair.layers for group in groups for pair in group.pairs))
        return save_figure(figure, stem)


def _draw_panel(axes: Axes, groups: Sequence[Group], kind: Quantity, extractor: str) -> None:
    effects = _places(groups, kind.key)
    limits = axis_limits([effect.change for effect in effects.values()], kind.ratio)
    null = 1.0 if kind.ratio else 0.0
    if kind.ratio:
        axes.set_xscale("log")
    axes.axvline(null, color=INK, linewidth=0.7, linestyle=DASHES, zorder=1)
    for y, effect in effects.items():
        _draw_effect(axes, y, effect, limits)
    axes.set_xlim(*limits)
    axes.set_ylim(_rows(groups) - 0.4, -0.6)
    if kind.ratio:
        axes.set_xticks(ratio_ticks(*limits))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    symbol, arrow = kind.head_lines(extractor)
    axes.set_title(f"{symbol} {arrow}".replace(" (", "\n("))
    axes.set_xlabel("ratio" if kind.ratio else "difference")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _places(groups: Sequence[Group], key: str) -> dict[int, Effect]:
    """Row -> effect; the first row of every group is its head."""
    found, y = {}, 0
    for group in groups:
        for pair in group.pairs:
            y += 1
            found[y] = pair.effects[key]
        y += 1
    return found


def _rows(groups: Sequence[Group]) -> int:
    return sum(1 + len(group.methods) for group in groups)


def _draw_effect(axes: Axes, y: int, effect: Effect, limits: tuple[float, float]) -> None:
    """A marker on its interval; what lies beyond the axis becomes an arrow with its value."""
    colour, marker, face = LOOKS[effect.verdict]
    (low, high), change = limits, effect.change
    ends = [min(max(end, low), high) for end in (change.low, change.high)]
    axes.plot(ends, (y, y), color=colour, linewidth=1.2, solid_capstyle="butt", zorder=2)
    if change.low < low:
        axes.plot(low, y, "<", color=colour, markersize=3.5, clip_on=False, zorder=3)
    if change.high > high:
        axes.plot(high, y, ">", color=colour, markersize=3.5, clip_on=False, zorder=3)
    if low <= change.mean <= high:
        axes.plot(change.mean, y, marker, color=colour, markersize=4, markerfacecolor=face)
        return
    above = change.mean > high
    axes.annotate(
        f"{change.mean:.3g}".replace("-", MINUS),
        (high if above else low, y),
        (-5 if above else 5, 0),
        textcoords="offset points",
        ha="right" if above else "left",
        va="center",
        color=colour,
        fontsize=SMALL,
    )


def axis_limits(changes: Sequence[Span], ratio: bool) -> tuple[float, float]:
    """Ends of an axis that shows no change and all rows but those far beyond the usual ones.

    Args:
        changes: at least one.
        ratio: the axis is logarithmic about 1 instead of linear about 0.
    """
    lows, highs = ([getattr(c, end) for c in changes] for end in ("low", "high"))
    if ratio:
        lows, highs = list(map(math.log, lows)), list(map(math.log, highs))
    usual = statistics.median(
        max(abs(low), abs(high)) for low, high in zip(lows, highs, strict=True)
    )
    reach = FAR * usual or max(map(abs, (*lows, *highs)))
    low, high = max(min(0.0, *lows), -reach), min(max(0.0, *highs), reach)
    margin = 0.08 * (high - low) or 0.1
    ends = low - margin, high + margin
    return (math.exp(ends[0]), math.exp(ends[1])) if ratio else ends


def ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios inside an interval, of the coarsest kind that gives at least three, else all."""
    kinds = (
        [10.0**power for power in range(-6, 7)],
        [2.0**power for power in range(-12, 13)],
        [0.5, 0.7, 1, 1.4, 2, 2.8],
        [0.6, 0.8, 1, 1.2, 1.4, 1.6],
        [0.8, 0.9, 1, 1.1, 1.2],
        [0.95, 1, 1.05],
    )
    found = [[tick for tick in ticks if low <= tick <= high] for ticks in kinds]
    return next((ticks for ticks in found if len(ticks) >= 3), max(found, key=len))


def _label_rows(axes: Axes, groups: Sequence[Group]) -> None:
    labels = []
    for group in groups:
        labels.append(f"against {group.baseline.title}")
        labels += [pair.method.title + (MARK if pair.layers else "") for pair in group.pairs]
    axes.set_yticks(range(len(labels)), labels)
    y = 0
    for group in groups:
        axes.get_yticklabels()[y].set_fontweight("bold")
        y += 1 + len(group.methods)


def _legend(figure: Figure, marked: bool) -> None:
    """What the markers say, below the panels, and the mark on a row's title."""
    marks = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=face, markersize=4, label=word)
        for word, (colour, marker, face) in LOOKS.items()
    ]
    if marked:
        note = f"{MARK} other layers low-bit than in the baseline"
        marks.append(Line2D([], [], linestyle="", label=note))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
