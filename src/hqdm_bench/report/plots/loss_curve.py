"""Figure 4: distillation loss at one step of the table, epoch by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.plots.labels import EndLabel, join_remarks, label_ends
from hqdm_bench.report.plots.looks import Look, method_looks
from hqdm_bench.report.plots.style import (
    COLUMN_WIDTH,
    log_axis,
    new_figure,
    note_below,
    save_figure,
    spread_over,
    styled,
)
from hqdm_bench.report.results import LossHistory, read_history

__all__ = ["LossPanel", "draw_loss_curve", "loss_at_step", "read_losses", "running_mean"]

PANEL_HEIGHT, FRAME_HEIGHT = 1.2, 0.55  # inches
MARKED_EPOCHS = 24  # up to so many points are marked one by one; more are smoothed
WINDOW = 9  # epochs of the running mean


@dataclass(frozen=True)
class LossPanel:
    """Curves of one bit-width.

    Attributes:
        curves: method -> (seeds, epochs) loss.
        titles: method -> name beside its curve.
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
    """One panel per bit-width: the mean over seeds on a band from the lowest to the highest.

    Long trainings are noisy at a single step; their line is a running mean.

    Args:
        panels: top to bottom.
        step: index of the step table shown, for the axis label.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not panels:
        raise BenchError(f"{stem.name} has no panel; give it at least one bit-width")
    looks = method_looks(list(dict.fromkeys(m for panel in panels for m in panel.curves)))
    with styled():
        figure = new_figure(COLUMN_WIDTH, FRAME_HEIGHT + PANEL_HEIGHT * len(panels))
        column = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, panel in zip(column, panels, strict=True):
            _draw_panel(axes, panel, looks)
        column[-1].set_xlabel("epoch (teacher trajectory)")
        figure.supylabel(f"distillation loss at step {step}")
        note_below(figure, join_remarks({p.bits.label: _remark(p) for p in panels}))
        return save_figure(figure, stem)


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Centred mean over up to ``window`` (odd) neighbours, fewer towards both ends."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _draw_panel(axes: Axes, panel: LossPanel, looks: Mapping[str, Look]) -> None:
    ends = {m: _draw_method(axes, curves, looks[m]) for m, curves in panel.curves.items()}
    values = np.concatenate([curves.ravel() for curves in panel.curves.values()])
    if spread_over(values.tolist()):
        log_axis(axes, values.min(), values.max())
    else:
        axes.set_ylim(0, 1.1 * values.max())
    axes.set_title(panel.bits.label, loc="left")
    axes.set_xlim(0.5, max(curves.shape[1] for curves in panel.curves.values()) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    labels = [EndLabel(end, panel.titles[m], looks[m].colour) for m, end in ends.items()]
    label_ends(axes, labels, PANEL_HEIGHT - 0.25)


def _remark(panel: LossPanel) -> str:
    """What a line is."""
    seeds = sorted({len(curves) for curves in panel.curves.values()})
    counts = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seeds"
    text = "one seed" if seeds == [1] else f"mean and range of {counts}"
    smoothed = any(curves.shape[1] > MARKED_EPOCHS for curves in panel.curves.values())
    return f"{text}, running mean over {WINDOW} epochs" if smoothed else text


def _draw_method(axes: Axes, curves: npt.NDArray[np.float64], look: Look) -> float:
    """Draw a method's curve and return where it ends."""
    seeds, count = curves.shape
    epochs, mean = np.arange(1, count + 1), curves.mean(axis=0)
    if seeds > 1:
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(epochs, low, high, color=look.colour, alpha=0.18, linewidth=0)
    elif count > MARKED_EPOCHS:
        axes.plot(epochs, mean, color=look.colour, linewidth=0.5, alpha=0.5)
    if count > MARKED_EPOCHS:
        mean = running_mean(mean, WINDOW)
    axes.plot(epochs, mean, **(look.line if count > MARKED_EPOCHS else look.curve))
    return float(mean[-1])
