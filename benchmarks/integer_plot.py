"""Plot what `integer.py` measured: whole UNets, and every layer shape under its roofs.

python benchmarks/integer_plot.py integer.json integer
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from hqdm_bench.report.plots.style import (
    COLOURS,
    DASHES,
    INK,
    MUTED,
    SMALL,
    TEXT_WIDTH,
    new_figure,
    save_figure,
    styled,
)

GIGA = 1e9
TITLES = {
    "fake_released": "fake, released form",
    "fake_frozen": "fake, frozen",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "integer": "integer",
}
# Bytes of an input value, a weight and an output value in memory.
WIDTHS = {"float32": (4, 4, 4), "integer": (4, 1, 4)}
LOOKS = {"float32": (COLOURS["vermillion"], "o"), "integer": (COLOURS["blue"], "^")}


def whole(axes: Axes, models: dict[str, Any], batch: str) -> None:
    """Speed of every form over that of float32."""
    forms = list(TITLES)
    height = 0.8 / len(models)
    colours = [COLOURS["blue"], COLOURS["orange"], COLOURS["green"]]
    for place, (name, entry) in enumerate(models.items()):
        times = entry["end_to_end"][batch]
        speeds = [times["float32"]["seconds"] / times[form]["seconds"] for form in forms]
        rows = [index + (place - (len(models) - 1) / 2) * height for index in range(len(forms))]
        axes.barh(rows, speeds, height, color=colours[place], label=name)
        for row, speed in zip(rows, speeds, strict=True):
            axes.text(speed + 0.05, row, f"{speed:.2f}", va="center", fontsize=SMALL, color=INK)
    axes.set_yticks(range(len(forms)), [TITLES[form] for form in forms])
    axes.invert_yaxis()
    axes.axvline(1, color=MUTED, linestyle=DASHES, linewidth=0.8)
    axes.set_xlabel(f"speed of a prediction over float32 (batch {batch})")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
    axes.legend(title="full-size UNet of", loc="center right")


def roofs(axes: Axes, result: dict[str, Any]) -> None:
    """Multiply-accumulates a second of every layer shape over those per byte it moves."""
    layers = [layer for model in result["models"].values() for layer in model.get("layers", [])]
    lowest, highest = math.inf, 0.0
    for form, (colour, marker) in LOOKS.items():
        points = []
        for layer in layers:
            moved = _moved(layer, WIDTHS[form])
            points.append((layer["macs"] / moved, layer["macs"] / GIGA / layer[form]))
        x, y = zip(*points, strict=True)
        lowest, highest = min(lowest, *x), max(highest, *x)
        axes.scatter(x, y, s=9, color=colour, marker=marker, alpha=0.6, linewidth=0, label=form)
    for name, form in (("float32, oneDNN", "float32"), ("int8", "integer")):
        peak, colour = result["peaks"].get(name), LOOKS[form][0]
        if peak is not None:
            knee = peak / result["bandwidth"]
            line = ([lowest, knee, highest], [lowest * result["bandwidth"], peak, peak])
            axes.plot(*line, color=colour, linewidth=0.8, linestyle=DASHES)
            label = f"{name}: {peak:.0f}"
            axes.text(highest, peak * 1.05, label, ha="right", fontsize=SMALL, color=colour)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("multiply-accumulates per byte moved")
    axes.set_ylabel("10⁹ multiply-accumulates per second")
    axes.legend(loc="lower right")


def _moved(layer: dict[str, Any], widths: tuple[int, int, int]) -> int:
    weights = math.prod(layer["weight"])
    outputs = layer["macs"] // math.prod(layer["weight"][1:])
    return math.prod(layer["input"]) * widths[0] + weights * widths[1] + outputs * widths[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("stem", type=Path, help="stem.pdf and stem.png are written")
    parser.add_argument("--batch", default="1")
    arguments = parser.parse_args()
    result = json.loads(arguments.results.read_text(encoding="utf-8"))
    with styled():
        figure = new_figure(TEXT_WIDTH, 2.9)
        left, right = figure.subplots(1, 2)
        whole(left, result["models"], arguments.batch)
        roofs(right, result)
        save_figure(figure, arguments.stem)


if __name__ == "__main__":
    main()
