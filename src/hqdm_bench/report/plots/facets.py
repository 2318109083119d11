"""What the figures of several panels share: markers with intervals, and one legend below."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hqdm_bench.report.estimates import IMAGES, SEEDS, Estimate
from hqdm_bench.report.plots.looks import Look
from hqdm_bench.report.plots.style import INK, log_axis, spread_over

__all__ = [
    "fit_y_axis",
    "full_precision_line",
    "interval_note",
    "legend_above",
    "mark",
]

HANDLE, LETTER = 0.55, 0.058  # inches: before a name in the legend, and of a letter


def mark(axes: Axes, x: float, found: Estimate, look: Look) -> None:
    """A marker on its interval; hollow where there is none."""
    known = found.low is not None and found.high is not None
    if found.low is not None and found.high is not None:
        cap = 0 if found.source == IMAGES else 1.5
        error = ([found.mean - found.low], [found.high - found.mean])
        axes.errorbar(x, found.mean, yerr=error, color=look.colour, elinewidth=0.9, capsize=cap)
    face = look.colour if known else "white"
    axes.plot(x, found.mean, **{**look.curve, "linestyle": ""}, markerfacecolor=face, zorder=3)


def fit_y_axis(axes: Axes, found: Sequence[Estimate]) -> None:
    """Logarithmic where positive values span much, with all intervals inside."""
    lows = [one.mean if one.low is None else one.low for one in found]
    highs = [one.mean if one.high is None else one.high for one in found]
    if min(lows) > 0 and spread_over([one.mean for one in found]):
        log_axis(axes, min(lows), max(highs))
    else:
        axes.locator_params(axis="y", nbins=5)
    axes.grid(axis="y")


def full_precision_line(axes: Axes, value: float | None, named: bool = True) -> None:
    """A dotted line at the full-precision model's value, if it has one, named at its right end."""
    if value is None:
        return
    axes.axhline(value, color=INK, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=1)
    if named:
        axes.annotate(
            "FP",
            (1, value),
            (2, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )


def interval_note(found: Sequence[Estimate]) -> str:
    """What the bars are, as far as there are any."""
    sources = {one.source for one in found}
    parts = []
    if SEEDS in sources:
        parts.append("capped bars: 95 % over training seeds")
    if IMAGES in sources:
        parts.append("plain bars: 95 % over images")
    if None in sources:
        parts.append("hollow: one seed, no interval")
    return "; ".join(parts)


def legend_above(
    figure: Figure,
    titles: Mapping[str, str],
    looks: Mapping[str, Look],
    others: Sequence[Line2D] = (),
) -> None:
    """Methods above all panels, as many in a line as there is room for, and other curves."""
    handles = [
        Line2D([], [], **looks[method].curve, label=title) for method, title in titles.items()
    ]
    handles += others
    widths = [HANDLE + LETTER * len(str(handle.get_label())) for handle in handles]
    room = figure.get_figwidth()
    columns = len(handles) if sum(widths) < room else max(1, int(room / max(widths)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=2.6)
