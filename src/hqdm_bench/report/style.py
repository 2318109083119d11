"""One look for every figure, and files whose bytes only depend on what is drawn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hqdm_bench.common.files import atomic_path

__all__ = [
    "AFTER",
    "BEFORE",
    "COLOURS",
    "INK",
    "MUTED",
    "TEXT_WIDTH",
    "annotate",
    "method_colours",
    "new_figure",
    "save_figure",
    "styled",
]

TEXT_WIDTH = 6.9  # inches, both columns of the paper's format
PNG_DPI = 200

# Okabe and Ito (2008), distinguishable under every common colour-vision deficiency.
COLOURS = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "orange": "#E69F00",
}
BEFORE = COLOURS["vermillion"]
AFTER = COLOURS["blue"]
INK = "#222222"
MUTED = "#767676"

FIXED_COLOURS = {
    "efficientdm": COLOURS["vermillion"],
    "hqdm": COLOURS["blue"],
    "hqdm-plus": COLOURS["green"],
}

SETTINGS = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine sets the same glyphs
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
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


def method_colours(methods: list[str]) -> dict[str, str]:
    """A colour per method; the paper's two and ours always have the same one."""
    free = [c for c in COLOURS.values() if c not in FIXED_COLOURS.values()]
    others = [method for method in methods if method not in FIXED_COLOURS]
    chosen = {method: free[i % len(free)] for i, method in enumerate(others)}
    return {method: FIXED_COLOURS.get(method) or chosen[method] for method in methods}


def annotate(axes: Axes, text: str, x: float = 0.98, y: float = 0.95) -> None:
    """Small text inside the axes, anchored at its upper right corner (axes coordinates)."""
    axes.text(
        x, y, text, transform=axes.transAxes, ha="right", va="top", fontsize=7, linespacing=1.3
    )


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``stem.pdf`` (vector) and ``stem.png`` (200 dpi), atomically and without dates.

    Returns:
        The two paths.
    """
    pdf, png = stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.png")
    with atomic_path(pdf) as temporary:
        metadata = {"CreationDate": None, "Creator": "hqdm-bench", "Producer": None}
        figure.savefig(temporary, format="pdf", metadata=metadata)
    with atomic_path(png) as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return pdf, png
