"""Figure 4: distillation loss at one step of the table, epoch by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.results import LossHistory, read_history
from hqdm_bench.report.style import (
    TEXT_WIDTH,
    method_colours,
    new_figure,
    save_figure,
    styled,
)

__all__ = ["LossPanel", "draw_loss_curve", "loss_at_step", "read_losses", "running_mean"]

LOG_RATIO = 8.0  # a panel that spans more than this factor is easier to read on a log axis
MARKED_EPOCHS = 24  # up to so many points are marked one by one; more are smoothed
WINDOW = 9  # epochs of the running mean


@dataclass(frozen=True)
class LossPanel:
    """Curves of one bit-width.

    Attributes:
        curves: method -> (seeds, epochs) loss.
        titles: method -> name in the legend.
    """

    bits: Bits
    curves: Mapping[str, npt.NDArray[np.float64]]
    titles: Mapping[str, str]


def loss_at_step(history: LossHistory, step: int) -> npt.NDArray[np.float64]:
    """Loss of the updates at one index of the step table, in the order of the epochs.

    Raises:
        BenchError: the history has no update at that step.
    """
    chosen = history.loss[history.step == step]
    if not len(chosen):
        held = f"0 to {history.step.max()}" if len(history.step) else "none"
        raise BenchError(f"no update at step {step}; the history holds steps {held}")
    return chosen


def read_losses(paths: Sequence[Path], step: int) -> npt.NDArray[np.float64]:
    """(seeds, epochs) losses of one method from the history.csv of each seed.

    Raises:
        BenchError: a file is missing or damaged, or the seeds trained for different epochs.
    """
    curves = []
    for path in paths:
        try:
            curves.append(loss_at_step(read_history(path), step))
        except BenchError as error:
            raise BenchError(f"{path}: {error}") from error
    if len({len(curve) for curve in curves}) != 1:
        counts = ", ".join(f"{path}: {len(c)}" for path, c in zip(paths, curves, strict=True))
        raise BenchError(f"seeds differ in their number of epochs ({counts}); train them alike")
    return np.stack(curves)


def draw_loss_curve(panels: Sequence[LossPanel], step: int, stem: Path) -> tuple[Path, Path]:
    """One panel per bit-width: every seed thin, their mean thick, the band from min to max.

    Long trainings are noisy at a single step; their thick line is a running mean.

    Args:
        panels: left to right.
        step: index of the step table shown, for the axis label.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not panels:
        raise BenchError(f"{stem.name} has no panel; give it at least one bit-width")
    colours = method_colours(list(dict.fromkeys(m for panel in panels for m in panel.curves)))
    with styled():
        figure = new_figure(TEXT_WIDTH, 2.5)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            _draw_panel(axes, panel, colours)
        grid[0].set_ylabel(f"distillation loss at step {step}")
        return save_figure(figure, stem)


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Centred mean over up to ``window`` (odd) neighbours, fewer towards both ends."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _draw_panel(axes: Axes, panel: LossPanel, colours: Mapping[str, str]) -> None:
    for method, curves in panel.curves.items():
        _draw_method(axes, curves, colours[method], panel.titles[method])
    values = np.concatenate([curves.ravel() for curves in panel.curves.values()])
    if values.min() > 0 and values.max() / values.min() > LOG_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.1 * values.max())
    axes.set_title(panel.bits.label)
    axes.set_xlabel("epoch (teacher trajectory)")
    axes.set_xlim(0.5, max(curves.shape[1] for curves in panel.curves.values()) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", linewidth=0.4, color="#dddddd")
    axes.set_axisbelow(True)
    axes.legend(loc="best")


def _draw_method(axes: Axes, curves: npt.NDArray[np.float64], colour: str, title: str) -> None:
    seeds, count = curves.shape
    epochs, mean = np.arange(1, count + 1), curves.mean(axis=0)
    remarks = [f"mean of {seeds} seeds"] if seeds > 1 else []
    if seeds > 1:
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    if count > MARKED_EPOCHS:
        mean = running_mean(mean, WINDOW)
        remarks.append(f"over {WINDOW} epochs" if seeds > 1 else f"mean over {WINDOW} epochs")
    if seeds > 1 or count > MARKED_EPOCHS:
        axes.plot(epochs, curves.T, color=colour, linewidth=0.5, alpha=0.5)
    label = f"{title} ({' and '.join(remarks)})" if remarks else title
    marker = "o" if count <= MARKED_EPOCHS else None
    axes.plot(epochs, mean, color=colour, marker=marker, markersize=3, label=label)
