"""Figure `outlier_strength`: noise error of the students over the strength of outlier channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import Span
from hqdm_bench.report.plots.labels import EndLabel, label_ends
from hqdm_bench.report.plots.looks import Look, method_looks
from hqdm_bench.report.plots.style import (
    COLUMN_WIDTH,
    log_axis,
    new_figure,
    save_figure,
    styled,
)

__all__ = ["draw_outlier_strength", "strength"]

HEIGHT = 2.4  # inches
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
        titles: method -> name beside its curve.
        bits: as shown in the title.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not curves or not all(curves.values()):
        raise BenchError(f"{stem.name} has nothing to show; give it methods and models")
    looks = method_looks(list(curves))
    with styled():
        figure = new_figure(COLUMN_WIDTH, HEIGHT)
        axes = figure.subplots()
        for place, (method, curve) in enumerate(curves.items()):
            shift = SPREAD ** (place - (len(curves) - 1) / 2)
            _draw_curve(axes, curve, shift, looks[method])
        _set_axes(axes, [span for curve in curves.values() for span in curve.values()])
        axes.set_xticks(factors := sorted({f for curve in curves.values() for f in curve}))
        axes.set_xticklabels([f"{factor:g}" for factor in factors])
        axes.set_title(f"{bits}, 95 % intervals over seeds", loc="left")
        ends = {method: curve[max(curve)].mean for method, curve in curves.items()}
        labels = [EndLabel(end, titles[m], looks[m].colour) for m, end in ends.items()]
        label_ends(axes, labels, HEIGHT - 0.6)
        return save_figure(figure, stem)


def _draw_curve(axes: Axes, curve: Curve, shift: float, look: Look) -> None:
    factors = sorted(curve)
    spans = [curve[factor] for factor in factors]
    below = [span.mean - span.low for span in spans]
    above = [span.high - span.mean for span in spans]
    axes.errorbar(
        [shift * factor for factor in factors],
        [span.mean for span in spans],
        yerr=(below, above),
        elinewidth=0.9,
        capsize=1.5,
        **look.curve,
    )


def _set_axes(axes: Axes, spans: Sequence[Span]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("strength of the outlier channels (factor)")
    log_axis(axes, min(span.low for span in spans), max(span.high for span in spans))
    axes.set_ylabel("noise error (geometric mean)")
    axes.grid(axis="y")
