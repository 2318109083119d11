"""Loss curves as small drawings, one a model and bit-width."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hqdm_bench.catalogue import Bits, Catalogue, Cell, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.report.page.colours import MethodLook
from hqdm_bench.report.plots.loss_curve import MARKED_EPOCHS, WINDOW, read_losses, running_mean
from hqdm_bench.report.plots.style import spread_over
from hqdm_bench.report.results import read_history

__all__ = ["LossLine", "LossPanel", "Tick", "loss_panels"]

STEP = 0  # of the step table, as in the paper's Figure 4
LEFT, RIGHT, TOP, BOTTOM = 38.0, 232.0, 8.0, 116.0  # of the plotting area, in drawing units
TICKS = 3


@dataclass(frozen=True)
class LossLine:
    """One method: every seed thin, their mean thick, as points of a polyline."""

    method: str
    title: str
    look: MethodLook
    mean: str
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class Tick:
    """A label of an axis, at its place along it."""

    place: float
    text: str


@dataclass(frozen=True)
class LossPanel:
    """One drawing; ``text`` says in words where the curves end."""

    model: str
    bits: str
    lines: tuple[LossLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    text: str


def loss_panels(
    root: Path, suite: Suite, catalogue: Catalogue, looks: Mapping[str, MethodLook]
) -> tuple[LossPanel, ...]:
    """Curves of every trained student of a suite at step 0 of the step table.

    Methods that calibrate instead of training have no losses, and no curve.

    Raises:
        BenchError: a history is missing or damaged, or the seeds of a method differ in length.
    """
    layout, found = Layout(root), []
    for entry in suite.models:
        for bits in dict.fromkeys(cell.bits for cell in entry.students):
            groups: dict[str, list[Cell]] = {}
            for cell in entry.students:
                if cell.bits == bits and _trained(layout.history(cell)):
                    groups.setdefault(cell.method, []).append(cell)
            curves = {
                method: read_losses([layout.history(cell) for cell in cells], STEP)
                for method, cells in groups.items()
            }
            titles = {method: catalogue.method(method).title for method in groups}
            if curves:
                found.append(_panel(entry.model, bits, curves, titles, looks))
    return tuple(found)


def _trained(history: Path) -> bool:
    """Whether there is a loss in it."""
    return len(read_history(history).loss) > 0


def _panel(
    model: str,
    bits: Bits,
    curves: Mapping[str, npt.NDArray[np.float64]],
    titles: Mapping[str, str],
    looks: Mapping[str, MethodLook],
) -> LossPanel:
    values = np.concatenate([found.ravel() for found in curves.values()])
    low, high, logarithmic = _range(values)
    epochs = max(found.shape[1] for found in curves.values())

    def points(line: npt.NDArray[np.float64]) -> str:
        scaled = np.log(line) if logarithmic else line
        y = BOTTOM - (BOTTOM - TOP) * (scaled - low) / (high - low)
        x = LEFT + (RIGHT - LEFT) * np.arange(len(line)) / max(1, epochs - 1)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    lines = []
    for method, found in curves.items():
        mean = found.mean(axis=0)
        smooth = running_mean(mean, WINDOW) if len(mean) > MARKED_EPOCHS else mean
        seeds = tuple(map(points, found)) if len(found) > 1 or smooth is not mean else ()
        lines.append(LossLine(method, titles[method], looks[method], points(smooth), seeds))
    ends = ", ".join(f"{titles[m]} {found[:, -1].mean():.3g}" for m, found in curves.items())
    return LossPanel(
        model,
        bits.label,
        tuple(lines),
        (Tick(LEFT, "1"), Tick(RIGHT, str(epochs))),
        _ticks(low, high, logarithmic),
        f"Loss at the last of {epochs} epochs: {ends}.",
    )


def _range(values: npt.NDArray[np.float64]) -> tuple[float, float, bool]:
    """Ends of the axis, as logarithms where the values span much."""
    smallest, largest = float(values.min()), float(values.max())
    if spread_over(values.tolist()):
        return math.log(smallest) - 0.05, math.log(largest) + 0.05, True
    return 0.0, 1.08 * largest if largest > 0 else 1.0, False


def _ticks(low: float, high: float, logarithmic: bool) -> tuple[Tick, ...]:
    """Round values at about even distances."""
    if logarithmic:
        places = [low + (high - low) * (k + 0.5) / TICKS for k in range(TICKS)]
        values = [_rounded(math.exp(place)) for place in places]
        places = list(map(math.log, values))
    else:
        step = _rounded(high / TICKS)
        values = [k * step for k in range(TICKS + 1) if k * step <= high]
        places = values
    height = BOTTOM - TOP
    return tuple(
        Tick(round(BOTTOM - height * (place - low) / (high - low), 1), _label(value))
        for place, value in zip(places, values, strict=True)
    )


def _label(value: float) -> str:
    """Short enough for the margin."""
    return f"{value:g}" if value < 10_000 else f"{value / 1000:g}k"


def _rounded(value: float) -> float:
    """The nearest of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(math.log(factor * power / value)))
