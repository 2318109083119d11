"""Figure 3c: what folding the Hadamard matrix into a weight does to its outliers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from hqdm_bench.report.arrays import read_arrays
from hqdm_bench.report.plots.style import (
    AFTER,
    BEFORE,
    COLUMN_WIDTH,
    DASHES,
    INK,
    log_axis,
    new_figure,
    save_figure,
    styled,
)
from hqdm_bench.report.table_text import MINUS

__all__ = ["WeightStatistics", "draw_weight_rotation", "read_weights", "weight_statistics"]

BINS, FACTOR_BINS = 121, 48
LINES_TOP = 0.75  # share of the panel below its legend
Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class WeightStatistics:
    """Spread of a weight whose rows are output channels.

    Attributes:
        maximum: largest magnitude.
        kurtosis: excess kurtosis of all entries, 0 for a normal distribution and
            for a constant.
        row_maxima: (c_out,) largest magnitude per output channel, what sets a row's step size.
    """

    maximum: float
    kurtosis: float
    row_maxima: npt.NDArray[np.float64]


def weight_statistics(weight: Array) -> WeightStatistics:
    """Statistics of a weight of shape (c_out, c_in, ...)."""
    values = weight.reshape(len(weight), -1).astype(np.float64)
    rows = np.abs(values).max(axis=1)
    squares = (values - values.mean()) ** 2
    variance = float(squares.mean())
    kurtosis = float((squares**2).mean()) / variance**2 - 3 if variance > 0 else 0.0
    return WeightStatistics(float(rows.max()), kurtosis, rows)


def read_weights(path: Path, layer: str) -> tuple[Array, Array]:
    """Weight of a layer, raw and rotated along its input channels, from outliers.safetensors.

    Raises:
        BenchError: the file is missing or lacks the layer.
    """
    keys = [f"{layer}/weight/{side}" for side in ("before", "after")]
    arrays, _ = read_arrays(path, keys)
    return arrays[keys[0]], arrays[keys[1]]


def draw_weight_rotation(layer: str, before: Array, after: Array, stem: Path) -> tuple[Path, Path]:
    """Above the distribution of the entries, below how the largest of each output channel grows.

    Args:
        layer: CompVis name, for the title.
        before: (c_out, c_in, ...) weight.
        after: the same, rotated along c_in.
        stem: path without suffix.
    """
    with styled():
        figure = new_figure(COLUMN_WIDTH, 3.3)
        figure.suptitle(layer)
        above, below = figure.subplots(2, 1, height_ratios=(1.6, 1.0))
        raw, rotated = weight_statistics(before), weight_statistics(after)
        _distribution(above, before, after, raw, rotated)
        _growth(below, raw, rotated)
        return save_figure(figure, stem)


def _distribution(
    axes: Axes, before: Array, after: Array, raw: WeightStatistics, rotated: WeightStatistics
) -> None:
    limit = 1.03 * max(raw.maximum, rotated.maximum, 1e-12)
    edges = np.linspace(-limit, limit, BINS + 1)
    histograms = [np.histogram(weight, edges)[0] for weight in (before, after)]
    for counts, found, colour, name in (
        (histograms[0], raw, BEFORE, "W"),
        (histograms[1], rotated, AFTER, "HᵀW"),
    ):
        kurtosis = f"{found.kurtosis:.2f}".replace("-", MINUS)
        label = f"{name}: max {found.maximum:.3g}, excess kurtosis {kurtosis}"
        axes.stairs(counts, edges, color=colour, linewidth=1.0, label=label)
        for side in (-1, 1):
            place = side * found.maximum
            axes.axvline(place, ymax=LINES_TOP, color=colour, linewidth=0.8, linestyle=":")
    highest = float(np.max(histograms))
    log_axis(axes, 1, highest)
    axes.set_ylim(0.5, highest**1.6)  # room for the legend above the peak
    axes.set_xlabel("weight (dotted: largest)")
    axes.set_ylabel("entries per bin")
    axes.legend(loc="upper center", handlelength=1.2, borderaxespad=0.0)


def _growth(axes: Axes, raw: WeightStatistics, rotated: WeightStatistics) -> None:
    """To the right of 1 are output channels whose step size the rotation makes coarser."""
    factors = rotated.row_maxima / np.maximum(raw.row_maxima, 1e-12)
    low, high = min(0.9, float(factors.min())), max(1.1, float(factors.max()))
    counts, edges = np.histogram(factors, np.linspace(low, high, FACTOR_BINS + 1))
    axes.stairs(counts, edges, fill=True, color=AFTER)
    axes.axvline(1.0, color=INK, linewidth=0.8, linestyle=DASHES)
    axes.set_ylabel("output channels")
    axes.set_xlabel("largest |HᵀW| over largest |W| of an output channel")
    share, factor = float(np.mean(factors > 1)), float(np.median(factors))
    axes.set_title(f"{100 * share:.0f} % of output channels grow, median factor {factor:.2f}")
