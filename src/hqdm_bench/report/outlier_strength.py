"""Figure `outlier_strength`: noise error of the students over the strength of outlier channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import Span
from hqdm_bench.report.style import TEXT_WIDTH, method_colours, new_figure, save_figure, styled

__all__ = ["draw_outlier_strength", "strength"]

MARKERS = "osD^vP"
SPREAD = 1.025  # neighbouring methods stand this factor apart, so that their bars do not overlap

Curve = Mapping[float, Span]


def strength(spec: ModelSpec) -> float:
    """Factor of a model's synthetic outlier channels.

    Raises:
        BenchError: the model has none.
    """
    factor = (spec.outliers or {}).get("factor")
    if factor is None or factor <= 0:
        raise BenchError(
            f"model '{spec.name}' has no positive outlier factor; give it 'outliers' in "
            "config/models.yaml or take it out of the figure"
        )
    return float(factor)


def draw_outlier_strength(
    curves: Mapping[str, Curve], titles: Mapping[str, str], bits: str, stem: Path
) -> tuple[Path, Path]:
    """One line a method: geometric mean of the noise error with its interval over seeds.

    Args:
        curves: method -> factor -> noise error.
        titles: method -> name in the legend.
        bits: as shown in the title.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not curves or not all(curves.values()):
        raise BenchError(f"{stem.name} has nothing to show; give it methods and models")
    colours = method_colours(list(curves))
    with styled():
        figure = new_figure(0.72 * TEXT_WIDTH, 3.1)
        axes = figure.subplots()
        for place, (method, curve) in enumerate(curves.items()):
            shift = SPREAD ** (place - (len(curves) - 1) / 2)
            marker = MARKERS[place % len(MARKERS)]
            _draw_curve(axes, curve, shift, colours[method], marker, titles[method])
        _set_axes(axes, sorted({factor for curve in curves.values() for factor in curve}))
        axes.set_title(bits)
        figure.legend(loc="outside lower center", ncols=min(3, len(curves)))
        return save_figure(figure, stem)


def _draw_curve(
    axes: Axes, curve: Curve, shift: float, colour: str, marker: str, title: str
) -> None:
    factors = sorted(curve)
    spans = [curve[factor] for factor in factors]
    below = [span.mean - span.low for span in spans]
    above = [span.high - span.mean for span in spans]
    axes.errorbar(
        [shift * factor for factor in factors],
        [span.mean for span in spans],
        yerr=(below, above),
        color=colour,
        marker=marker,
        markersize=4,
        elinewidth=0.9,
        capsize=2,
        label=title,
    )


def _set_axes(axes: Axes, factors: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("strength of the outlier channels (factor)")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("noise error (geometric mean)")
    axes.grid(axis="y", linewidth=0.4, color="#dddddd")
    axes.set_axisbelow(True)
