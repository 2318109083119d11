"""One look for every figure, and files whose bytes only depend on what is drawn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hqdm_bench.common.files import atomic_path

__all__ = [
    "AFTER",
    "BAD",
    "BEFORE",
    "COLOURS",
    "COLUMN_WIDTH",
    "DASHES",
    "GOOD",
    "INK",
    "MUTED",
    "RULE",
    "SMALL",
    "TEXT_WIDTH",
    "annotate",
    "log_axis",
    "new_figure",
    "note_below",
    "plain_number",
    "save_figure",
    "spread_over",
    "styled",
]

COLUMN_WIDTH, TEXT_WIDTH = 3.35, 6.9  # inches: one column of the paper's format, and both
PNG_DPI = 300
SMALL = 7  # points; nothing is set smaller, and nothing is meant to be scaled down

# Okabe and Ito (2008), distinguishable under every common colour-vision deficiency.
COLOURS = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "grey": "#767676",
}
INK = "#222222"
MUTED = COLOURS["grey"]
RULE = "#dddddd"
# Of a tensor before and after its rotation, and of verdicts; never beside methods.
BEFORE, AFTER = "#737373", "#3b2f8c"
GOOD, BAD = "#3b2f8c", "#882255"
DASHES = (0, (4, 2))  # of reference lines

SETTINGS = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine sets the same glyphs
    "font.size": SMALL,
    "axes.titlesize": 7.5,
    "axes.labelsize": SMALL,
    "figure.labelsize": SMALL,
    "figure.titlesize": 7.5,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelpad": 2.5,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,  # embedded outlines that journals accept
    "path.simplify": True,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw inside this block; the settings of the caller's session come back afterwards."""
    with matplotlib.style.context(["default", SETTINGS]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of that many inches, on the Agg canvas and outside pyplot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def annotate(axes: Axes, text: str, x: float = 0.99, y: float = 0.97) -> None:
    """Small text inside the axes, anchored at its upper right corner (axes coordinates)."""
    axes.text(
        x, y, text, transform=axes.transAxes, ha="right", va="top", fontsize=SMALL, linespacing=1.3
    )


def note_below(figure: Figure, text: str) -> None:
    """A remark under all panels: what bars and bands are."""
    if text:
        figure.supxlabel(text, color=MUTED)


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic y axis with plain numbers, the closer the fewer decades it spans."""
    axes.set_yscale("log")
    steps = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def plain_number(value: float) -> str:
    """A tick's number without an exponent set smaller than the rest: 0.01, 500, 20k, 1e-5."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}".replace("e-0", "e-")


def spread_over(values: list[float]) -> bool:
    """Whether positive values span so much that a logarithmic axis shows them better."""
    return min(values) > 0 and max(values) > 8 * min(values)


def save_figure(figure: Figure, stem: Path, dpi: int = PNG_DPI) -> tuple[Path, Path]:
    """Write ``stem.pdf`` (vector) and ``stem.png``, atomically and without dates.

    Args:
        figure: drawn.
        stem: path without suffix.
        dpi: dots per inch of the png, and of pictures in the pdf.

    Returns:
        The two paths.
    """
    pdf, png = stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")
    with atomic_path(pdf) as temporary:
        metadata = {"CreationDate": None, "Creator": "hqdm-bench", "Producer": None}
        figure.savefig(temporary, format="pdf", dpi=dpi, metadata=metadata)
    with atomic_path(png) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
    return pdf, png
