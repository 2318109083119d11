"""Figure `error_growth`: how far a student drifts from full precision as sampling goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from hqdm_bench.catalogue import Bits, Cell, Layout
from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.effects import span
from hqdm_bench.report.plots.labels import EndLabel, join_remarks, label_ends
from hqdm_bench.report.plots.looks import Look, method_looks
from hqdm_bench.report.plots.style import (
    COLUMN_WIDTH,
    log_axis,
    new_figure,
    note_below,
    save_figure,
    styled,
)
from hqdm_bench.report.results import read_own

__all__ = ["Growth", "GrowthPanel", "draw_error_growth", "read_growth"]

PANEL_HEIGHT, FRAME_HEIGHT = 1.2, 0.55  # inches
MARKERS = 7  # markers a curve
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """Error of one method along the sampling trajectory.

    Attributes:
        timesteps: (S,) diffusion times t in the order of sampling, so falling.
        errors: (seeds, S) median over images of the mean squared difference of the latents after
            that step, same noise and labels.
    """

    timesteps: npt.NDArray[np.int64]
    errors: Array


@dataclass(frozen=True)
class GrowthPanel:
    """Curves of one bit-width.

    Attributes:
        curves: method -> error.
        titles: method -> name beside its curve.
    """

    bits: Bits
    curves: Mapping[str, Growth]
    titles: Mapping[str, str]


def read_growth(layout: Layout, cells: Sequence[Cell]) -> Growth:
    """Errors of one method from the metrics.json of each seed.

    Raises:
        BenchError: a file is missing or another cell's, was scored without traces, holds an error
            that is not positive, or the seeds were sampled at different timesteps.
    """
    rows, times = [], set()
    for cell in cells:
        path = layout.metrics(cell)
        trace = (read_own(layout, path, cell)["paired"] or {}).get("growth")
        if not trace:
            raise BenchError(
                f"{path} has no errors over timesteps; set 'trace_images' in protocol "
                f"'{cell.protocol}' (config/protocols.yaml) and score the cell again"
            )
        errors = [float(step["latent_mse_median"]) for step in trace]
        if not all(np.isfinite(errors)) or min(errors) <= 0:
            raise BenchError(
                f"{path} has an error over timesteps that is not positive; delete it and run again"
            )
        rows.append(errors)
        times.add(tuple(int(step["timestep"]) for step in trace))
    if len(times) != 1:
        raise BenchError(
            f"seeds of {cells[0]} were sampled at different timesteps; score them again"
        )
    return Growth(np.array(times.pop()), np.array(rows))


def draw_error_growth(panels: Sequence[GrowthPanel], stem: Path) -> tuple[Path, Path]:
    """One panel per bit-width, on one scale: geometric mean over seeds with its 95 % interval.

    Args:
        panels: top to bottom.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not panels or not all(panel.curves for panel in panels):
        raise BenchError(f"{stem.name} has nothing to show; give it bit-widths and methods")
    looks = method_looks(list(dict.fromkeys(m for panel in panels for m in panel.curves)))
    with styled():
        figure = new_figure(COLUMN_WIDTH, FRAME_HEIGHT + PANEL_HEIGHT * len(panels))
        column = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        ends = [
            {m: _draw_method(axes, growth, looks[m]) for m, growth in panel.curves.items()}
            for axes, panel in zip(column, panels, strict=True)
        ]
        _set_axes(column[-1], panels)
        for axes, panel, last in zip(column, panels, ends, strict=True):
            axes.set_title(panel.bits.label, loc="left")
            axes.grid(axis="y")
            labels = [EndLabel(end, panel.titles[m], looks[m].colour) for m, end in last.items()]
            label_ends(axes, labels, PANEL_HEIGHT - 0.25)
        figure.supylabel("squared latent error to full precision")
        remark = join_remarks({p.bits.label: _remark(p) for p in panels})
        note_below(figure, f"median over images; {remark}")
        return save_figure(figure, stem)


def _set_axes(axes: Axes, panels: Sequence[GrowthPanel]) -> None:
    """Scales that all panels share; time runs as sampling does, from noise to image."""
    errors = np.concatenate([g.errors.ravel() for panel in panels for g in panel.curves.values()])
    times = np.concatenate([g.timesteps for panel in panels for g in panel.curves.values()])
    margin = 0.03 * (int(times.max()) - int(times.min())) or 1.0
    axes.set_xlim(times.max() + margin, times.min() - margin)
    axes.set_xlabel("timestep t (sampling runs to the right)")
    log_axis(axes, errors.min(), errors.max())
    axes.set_ylim(errors.min() / 1.4, errors.max() * 1.4)


def _remark(panel: GrowthPanel) -> str:
    counts = sorted({len(growth.errors) for growth in panel.curves.values()})
    if counts == [1]:
        return "one seed"
    shown = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"mean and 95 % interval of {shown} seeds"


def _draw_method(axes: Axes, growth: Growth, look: Look) -> float:
    """Draw a method's curve and return where it ends."""
    if len(growth.errors) > 1:
        spans = [span(column, ratio=True) for column in growth.errors.T.tolist()]
        low, high = [one.low for one in spans], [one.high for one in spans]
        axes.fill_between(growth.timesteps, low, high, color=look.colour, alpha=0.18, linewidth=0)
        mean = np.array([one.mean for one in spans])
    else:
        mean = growth.errors[0]
    every = max(1, len(mean) // MARKERS)
    axes.plot(growth.timesteps, mean, **{**look.curve, "markersize": 3}, markevery=every)
    return float(mean[-1])
