"""Figures 2 and 5 to 10: largest magnitude of every channel before and after the rotation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.arrays import read_arrays
from hqdm_bench.report.plots.style import (
    AFTER,
    BEFORE,
    COLUMN_WIDTH,
    DASHES,
    INK,
    SMALL,
    annotate,
    new_figure,
    save_figure,
    styled,
)

__all__ = ["ChannelMaxima", "draw_channel_maxima", "read_channel_maxima"]

ROW_HEIGHT, FRAME_HEIGHT = 1.0, 0.6  # inches
TIMES = "\N{MULTIPLICATION SIGN}"
HEADROOM = 1.3  # room above the tallest bar for the numbers


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
    """One row per panel: before on the left, after on the right, on the same scale.

    Args:
        panels: top to bottom.
        stem: path without suffix.

    Raises:
        BenchError: nothing to draw.
    """
    if not panels:
        raise BenchError(f"{stem.name} has no panel; give it at least one layer and one step")
    with styled():
        figure = new_figure(COLUMN_WIDTH, FRAME_HEIGHT + ROW_HEIGHT * len(panels))
        grid = figure.subplots(len(panels), 2, squeeze=False, sharey="row", sharex="row")
        title, heads = _heads(panels)
        figure.suptitle(title)
        for (left, right), panel, head in zip(grid, panels, heads, strict=True):
            limit = HEADROOM * float(max(panel.before.max(), panel.after.max(), 1e-12))
            _bars(left, panel.before, BEFORE, limit)
            _bars(right, panel.after, AFTER, limit)
            _head_row(left, head)
        for axes, name, colour in zip(grid[0], ("before", "after"), (BEFORE, AFTER), strict=True):
            axes.set_title(name + "\n" + _room(heads[0]), color=colour)
        for axes in grid[-1]:
            axes.set_xlabel("channel")
        figure.supylabel("largest |x| of the channel (dashed: median)")
        return save_figure(figure, stem)


def _heads(panels: Sequence[ChannelMaxima]) -> tuple[str, list[str]]:
    """What all rows share, for the whole figure, and what they do not, row by row."""
    layers = [panel.layer for panel in panels]
    steps = [f"step {panel.step} (t = {panel.timestep})" for panel in panels]
    if len(set(layers)) == 1:
        return f"input of {layers[0]}", steps
    if len(set(steps)) == 1:
        return f"layer inputs at {steps[0]}", layers
    rows = zip(layers, steps, strict=True)
    return "layer inputs", [f"{layer}\n{step}" for layer, step in rows]


def _head_row(axes: Axes, text: str) -> None:
    """Write over both panels of a row; a plain title this long would push them apart."""
    axes.set_title(_room(text))
    head = axes.annotate(
        text, (0, 1), (0, 3), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL
    )
    head.set_in_layout(False)


def _room(text: str) -> str:
    """Blank lines as high as a text."""
    return "\n".join(" " for _ in text.splitlines())


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
        linewidth=0.3,
    )
    median = float(np.median(values))
    axes.axhline(median, color=INK, linewidth=0.7, linestyle=DASHES)
    axes.set_xlim(0, len(values))
    axes.set_ylim(0, limit)
    axes.locator_params(axis="x", nbins=4, integer=True)
    axes.locator_params(axis="y", nbins=3)
    peak = float(values.max())
    ratio = f"{peak / median:.1f}" if median > 0 else "∞"
    annotate(axes, f"max {peak:.3g} = {ratio} {TIMES} median")
