"""Figures 2 and 5 to 10: largest magnitude of every channel before and after the rotation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.arrays import read_arrays
from hqdm_bench.report.style import (
    AFTER,
    BEFORE,
    INK,
    TEXT_WIDTH,
    annotate,
    new_figure,
    save_figure,
    styled,
)

__all__ = ["ChannelMaxima", "draw_channel_maxima", "read_channel_maxima"]

ROW_HEIGHT = 1.45  # inches
HEADROOM = 1.22  # room above the tallest bar for the numbers
MAX_COLUMNS = 3


@dataclass(frozen=True)
class ChannelMaxima:
    """Per-channel max |x| of one layer's input at one step.

    Attributes:
        layer: CompVis name.
        timestep: diffusion time t.
        step: index in the step table, 0 being the last denoising step.
        before: (C,) as the layer receives it.
        after: (C,) after the block rotation along channels.
    """

    layer: str
    timestep: int
    step: int
    before: npt.NDArray[np.float32]
    after: npt.NDArray[np.float32]


def read_channel_maxima(
    path: Path, layers: Sequence[str], steps: Sequence[int]
) -> list[ChannelMaxima]:
    """Panels of a figure from outliers.safetensors, layer by layer, step by step.

    Raises:
        BenchError: the file is missing or lacks a layer or step.
    """
    wanted = [(layer, step) for layer in layers for step in steps]
    keys = [f"{layer}/step{step}/{side}" for layer, step in wanted for side in ("before", "after")]
    arrays, metadata = read_arrays(path, keys)
    times: Mapping[int, int] = dict(zip(metadata["steps"], metadata["timesteps"], strict=True))
    return [
        ChannelMaxima(
            layer,
            times[step],
            step,
            arrays[f"{layer}/step{step}/before"],
            arrays[f"{layer}/step{step}/after"],
        )
        for layer, step in wanted
    ]


def draw_channel_maxima(panels: Sequence[ChannelMaxima], stem: Path) -> tuple[Path, Path]:
    """One column per panel: before above, after below, on the same scale.

    Args:
        panels: in reading order; several steps of several layers get a pair of rows a layer.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not panels:
        raise BenchError(f"{stem.name} has no panel; give it at least one layer and one step")
    bands = _bands(panels)
    columns = max(map(len, bands))
    with styled():
        figure = new_figure(TEXT_WIDTH, len(bands) * (2 * ROW_HEIGHT + 0.5))
        parts = figure.subfigures(len(bands), 1, squeeze=False)[:, 0]
        for part, band in zip(parts, bands, strict=True):
            _draw_band(part, band, columns)
        return save_figure(figure, stem)


def _bands(panels: Sequence[ChannelMaxima]) -> list[list[ChannelMaxima]]:
    """Panels that stand side by side: several steps of one layer, or several layers at one step."""
    layers: dict[str, list[ChannelMaxima]] = {}
    for panel in panels:
        layers.setdefault(panel.layer, []).append(panel)
    one_step = all(len(group) == 1 for group in layers.values())
    groups = [list(panels)] if one_step else list(layers.values())
    return [
        group[start : start + MAX_COLUMNS]
        for group in groups
        for start in range(0, len(group), MAX_COLUMNS)
    ]


def _draw_band(part: SubFigure, band: Sequence[ChannelMaxima], columns: int) -> None:
    layers = {panel.layer for panel in band}
    if len(layers) == 1:  # the same long name over every column would only repeat itself
        part.suptitle(band[0].layer, fontsize=8.5, fontfamily="monospace")
    grid = part.subplots(2, columns, squeeze=False, sharex="col")
    for column, panel in enumerate(band):
        limit = HEADROOM * float(max(panel.before.max(), panel.after.max(), 1e-12))
        _bars(grid[0, column], panel.before, BEFORE, limit)
        _bars(grid[1, column], panel.after, AFTER, limit)
        where = f"step {panel.step} (t = {panel.timestep})"
        title = where if len(layers) == 1 else f"{_wrap(panel.layer)}\n{where}"
        grid[0, column].set_title(title, fontsize=7.5)
        grid[1, column].set_xlabel("channel (dashed: median)")
    grid[0, 0].set_ylabel("max |x|, before")
    grid[1, 0].set_ylabel("max |x|, after H")
    for axes in grid[:, len(band) :].flat:
        axes.set_visible(False)


def _bars(axes: Axes, values: npt.NDArray[np.float32], colour: str, limit: float) -> None:
    """Filled steps: one path, so a thousand channels stay a small vector file.

    The outline keeps a bar visible that is narrower than a pixel.
    """
    axes.stairs(
        values,
        np.arange(len(values) + 1),
        fill=True,
        facecolor=colour,
        edgecolor=colour,
        linewidth=0.4,
    )
    median = float(np.median(values))
    axes.axhline(median, color=INK, linewidth=0.7, linestyle=(0, (4, 2)))
    axes.set_xlim(0, len(values))
    axes.set_ylim(0, limit)
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.locator_params(axis="y", nbins=4)
    peak = float(values.max())
    ratio = f"{peak / median:.1f}" if median > 0 else "∞"
    annotate(axes, f"max {peak:.3g}, max/median {ratio}", y=0.99)


def _wrap(layer: str, width: int = 34) -> str:
    """Break a dotted name into lines that fit over a third of the text width.

    A number stays with the name before it, as in ``in_layers.2``.
    """
    parts = re.findall(r"[^.]*[^.\d][^.]*(?:\.\d+)*", layer)
    lines = [parts[0]]
    for part in parts[1:]:
        if len(f"{lines[-1]}.{part}") > width:
            lines.append(f".{part}")
        else:
            lines[-1] += f".{part}"
    return "\n".join(lines)
