"""Figure 3c: what folding the Hadamard matrix into a weight does to its outliers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from hqdm_bench.report.arrays import read_arrays
from hqdm_bench.report.style import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    TEXT_WIDTH,
    annotate,
    new_figure,
    save_figure,
    styled,
)

__all__ = ["WeightStatistics", "draw_weight_rotation", "read_weights", "weight_statistics"]

BINS = 121
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
    """Left the distribution of the entries, right every output channel's largest magnitude.

    Args:
        layer: CompVis name, for the title.
        before: (c_out, c_in, ...) weight.
        after: the same, rotated along c_in.
        stem: path without suffix.
    """
    with styled():
        figure = new_figure(TEXT_WIDTH, 2.75)
        figure.suptitle(layer, fontsize=8.5, fontfamily="monospace")
        left, right = figure.subplots(1, 2, width_ratios=(1.55, 1.0))
        raw, rotated = weight_statistics(before), weight_statistics(after)
        _distribution(left, before, after, raw, rotated)
        _rows(right, raw, rotated)
        return save_figure(figure, stem)


def _distribution(
    axes: Axes, before: Array, after: Array, raw: WeightStatistics, rotated: WeightStatistics
) -> None:
    limit = 1.03 * max(raw.maximum, rotated.maximum, 1e-12)
    edges = np.linspace(-limit, limit, BINS + 1)
    for weight, found, colour, name in (
        (before, raw, BEFORE, "W"),
        (after, rotated, AFTER, "HᵀW"),
    ):
        counts, _ = np.histogram(weight, edges)
        label = f"{name}: max {found.maximum:.3g}, excess kurtosis {found.kurtosis:.2f}"
        axes.stairs(counts, edges, color=colour, linewidth=1.1, label=label)
        for side in (-1, 1):
            axes.axvline(side * found.maximum, color=colour, linewidth=0.8, linestyle=":")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    top = axes.get_ylim()[1]
    axes.set_ylim(top=top**1.35)  # room for the legend above the peak
    axes.set_xlabel("weight")
    axes.set_ylabel("entries per bin")
    axes.legend(loc="upper center", handlelength=1.2)


def _rows(axes: Axes, raw: WeightStatistics, rotated: WeightStatistics) -> None:
    """Points above the diagonal are output channels whose step size the rotation makes coarser."""
    axes.scatter(raw.row_maxima, rotated.row_maxima, s=7, color=AFTER, alpha=0.55, linewidths=0)
    limit = 1.05 * max(raw.maximum, rotated.maximum, 1e-12)
    axes.plot([0, limit], [0, limit], color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.locator_params(nbins=4)
    axes.set_xlabel("max |W| of an output channel")
    axes.set_ylabel("max |HᵀW|")
    share = float(np.mean(rotated.row_maxima > raw.row_maxima))
    axes.set_title(f"{100 * share:.0f} % of output channels grow", color=INK)
    factor = float(np.median(rotated.row_maxima / np.maximum(raw.row_maxima, 1e-12)))
    annotate(axes, f"median factor {factor:.2f}", y=0.1)
