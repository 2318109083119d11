"""Figure 3a and b: where a single and a double Hadamard transform stand, on one layer's data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hqdm_bench.report.plots.channel_maxima import ChannelMaxima
from hqdm_bench.report.plots.style import (
    AFTER,
    BEFORE,
    COLUMN_WIDTH,
    INK,
    SMALL,
    new_figure,
    save_figure,
    styled,
)
from hqdm_bench.report.plots.weight_rotation import weight_statistics

__all__ = ["draw_hadamard_schemes"]

# All in inches.
HEIGHT, HEAD = 1.55, 0.35  # of one scheme, and of what stands above both
INPUT_ROW, WEIGHT_ROW = 0.9, 0.24  # heights of the two paths
STRIP_WIDTH, STRIP_HEIGHT = 0.6, 0.34
PLAIN, ROTATED = 0.12, 1.22  # left ends of the strips
TURN, QUANTIZE, TURN_BACK, MULTIPLY = 0.96, 2.08, 2.46, 2.86  # middles of the operations
BOX, AIR = 0.11, 0.03  # half the side of an operation, and what an arrow keeps from a strip
ARROW = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.7, "mutation_scale": 6}
Array = npt.NDArray[np.floating]
Place = tuple[float, float]


@dataclass(frozen=True)
class Strip:
    """A tensor in the diagram: its name, channel maxima, colour and the height of its plot."""

    name: str
    maxima: Array
    colour: str
    limit: float


def draw_hadamard_schemes(
    inputs: ChannelMaxima, before: Array, after: Array, stem: Path
) -> tuple[Path, Path]:
    """Two flow charts whose tensors are drawn as the layer's own channel maxima.

    Above the single transform: the input is rotated, quantized and rotated back in integers, the
    weight is quantized as it is. Below the double one: both are rotated before their quantizers.

    Args:
        inputs: channel maxima of the layer's input.
        before: (c_out, c_in, ...) its weight.
        after: the same, rotated along c_in.
        stem: path without suffix.
    """
    x, rotated_x = _strips("X", "XH", inputs.before, inputs.after)
    rows = (weight_statistics(weight).row_maxima for weight in (before, after))
    w, rotated_w = _strips("W", "HᵀW", *rows)
    with styled():
        figure = new_figure(COLUMN_WIDTH, 2 * HEIGHT + HEAD)
        figure.set_layout_engine("none")
        canvas = figure.add_axes((0, 0, 1, 1))
        canvas.set(xlim=(0, COLUMN_WIDTH), ylim=(0, 2 * HEIGHT + HEAD))
        canvas.set_axis_off()
        where = f"step {inputs.step} (t = {inputs.timestep})"
        head = f"{inputs.layer}\nbars: largest |X| by input, |W| by output channel; {where}"
        middle = (COLUMN_WIDTH / 2, 2 * HEIGHT + HEAD - 0.05)
        canvas.text(*middle, head, ha="center", va="top", linespacing=1.4)
        _title(canvas, HEIGHT, "(a) single", "Y = Q(XH) H Q(W)")
        _path(figure, canvas, HEIGHT + INPUT_ROW, [x, rotated_x], "H", back=True)
        _path(figure, canvas, HEIGHT + WEIGHT_ROW, [w], "", back=False)
        _product(canvas, HEIGHT)
        _title(canvas, 0.0, "(b) double", "Y = Q(XH) Q(HᵀW)")
        _path(figure, canvas, INPUT_ROW, [x, rotated_x], "H", back=False)
        _path(figure, canvas, WEIGHT_ROW, [w, rotated_w], "Hᵀ", back=False)
        _product(canvas, 0.0)
        return save_figure(figure, stem)


def _strips(name: str, rotated: str, before: Array, after: Array) -> tuple[Strip, Strip]:
    """A tensor before and after, on one scale."""
    limit = float(max(before.max(), after.max(), 1e-12))
    return Strip(name, before, BEFORE, limit), Strip(rotated, after, AFTER, limit)


def _title(canvas: Axes, bottom: float, name: str, formula: str) -> None:
    y = bottom + HEIGHT - 0.14
    canvas.text(PLAIN, y, name, fontweight="bold", va="center")
    canvas.text(ROTATED, y, formula, va="center")


def _path(
    figure: Figure, canvas: Axes, y: float, strips: Sequence[Strip], turn: str, back: bool
) -> None:
    """A tensor's way to the product: rotated or not, quantized, in integers rotated back or not."""
    _strip(figure, PLAIN, y, strips[0])
    last = PLAIN + STRIP_WIDTH + AIR
    if turn:
        _arrow(canvas, (last, y), (TURN - BOX, y))
        _box(canvas, TURN, y, turn, AFTER)
        _arrow(canvas, (TURN + BOX, y), (ROTATED - AIR, y))
        _strip(figure, ROTATED, y, strips[1])
        last = ROTATED + STRIP_WIDTH + AIR
    _arrow(canvas, (last, y), (QUANTIZE - BOX, y))
    _box(canvas, QUANTIZE, y, "Q", INK)
    last = QUANTIZE + BOX
    if back:
        _arrow(canvas, (last, y), (TURN_BACK - BOX, y))
        _box(canvas, TURN_BACK, y, "H", AFTER)
        last = TURN_BACK + BOX
    canvas.plot((last, MULTIPLY), (y, y), color=INK, linewidth=0.7)


def _product(canvas: Axes, bottom: float) -> None:
    """Where both paths meet."""
    middle = bottom + (INPUT_ROW + WEIGHT_ROW) / 2
    _arrow(canvas, (MULTIPLY, bottom + INPUT_ROW), (MULTIPLY, middle + BOX))
    _arrow(canvas, (MULTIPLY, bottom + WEIGHT_ROW), (MULTIPLY, middle - BOX))
    _box(canvas, MULTIPLY, middle, "\N{MULTIPLICATION SIGN}", INK)
    _arrow(canvas, (MULTIPLY + BOX, middle), (MULTIPLY + 2.2 * BOX, middle))
    canvas.text(MULTIPLY + 2.5 * BOX, middle, "Y", va="center")


def _strip(figure: Figure, x: float, y: float, strip: Strip) -> None:
    """A small plot of channel maxima under its name and the largest of them."""
    width, height = figure.get_size_inches()
    place = (x / width, (y - STRIP_HEIGHT / 2) / height, STRIP_WIDTH / width, STRIP_HEIGHT / height)
    axes = figure.add_axes(place)
    axes.stairs(
        strip.maxima, fill=True, facecolor=strip.colour, edgecolor=strip.colour, linewidth=0.2
    )
    axes.set(xlim=(0, len(strip.maxima)), ylim=(0, strip.limit), xticks=[], yticks=[])
    axes.spines["left"].set_visible(False)
    text = f"{strip.name}: max {float(strip.maxima.max()):.3g}"
    axes.set_title(text, fontsize=SMALL, color=strip.colour, pad=2)


def _box(canvas: Axes, x: float, y: float, text: str, colour: str) -> None:
    style = {"boxstyle": "square,pad=0.25", "facecolor": "white", "edgecolor": colour}
    canvas.text(x, y, text, ha="center", va="center", color=colour, bbox=style)


def _arrow(canvas: Axes, start: Place, end: Place) -> None:
    canvas.annotate("", end, start, arrowprops={**ARROW, "shrinkA": 0, "shrinkB": 0})
