"""Figures 11 to 14: the same noise and labels through several models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.arrays import first_images
from hqdm_bench.report.plots.style import TEXT_WIDTH, new_figure, save_figure, styled

__all__ = ["SamplePanel", "draw_sample_grid", "mosaic", "read_panel"]

MAX_COLUMNS = 3  # panels side by side
PICTURE_DPI = 200  # more would only repeat the pixels of small images
MINIMUM_PIXELS = 96  # small images are enlarged to at least this, by whole factors, unsmoothed
PADDING, TITLE_HEIGHT = 0.08, 0.24  # inches around and above a panel
GAP = 1 / 16  # between images, as a share of their width


@dataclass(frozen=True)
class SamplePanel:
    """Images of one model.

    Attributes:
        title: method and bits.
        images: (n, H, W, 3) uint8, images 0 to n - 1 of the set.
        labels: (n,) int64, -1 for unconditional models.
    """

    title: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def read_panel(title: str, shards: Sequence[Path], count: int) -> SamplePanel:
    """The first ``count`` images of a set, not selected.

    Raises:
        BenchError: a shard is missing or damaged, or the set is too small.
    """
    images, labels = first_images(shards, count)
    return SamplePanel(title, images, labels)


def mosaic(images: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Lay images out row by row on white.

    Args:
        images: (n, H, W, 3) uint8.
        columns: images per row; a last row that is not full stays white.

    Returns:
        One (height, width, 3) uint8 picture.
    """
    factor = max(1, math.ceil(MINIMUM_PIXELS / images.shape[2]))
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    n, height, width, _ = large.shape
    gap = max(1, round(GAP * width))
    rows = math.ceil(n / columns)
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    canvas = np.full(size, 255, dtype=np.uint8)
    for i, image in enumerate(large):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def draw_sample_grid(panels: Sequence[SamplePanel], stem: Path) -> tuple[Path, Path]:
    """Panels side by side; image i of every panel started from the same noise and label.

    Args:
        panels: in reading order, at most three in a row.
        stem: path without suffix.

    Raises:
        BenchError: no panel, or panels that do not show the same labels or image size.
    """
    if not panels:
        raise BenchError(f"{stem.name} has no panel; give it at least one method")
    for panel in panels[1:]:
        if panel.images.shape != panels[0].images.shape or not np.array_equal(
            panel.labels, panels[0].labels
        ):
            raise BenchError(
                f"{stem.name}: '{panel.title}' and '{panels[0].title}' do not show the same labels "
                "and sizes; they were drawn under different protocols, draw one of them again"
            )
    count = len(panels[0].images)
    pictures = [mosaic(panel.images, max(1, math.isqrt(count))) for panel in panels]
    columns = min(len(panels), MAX_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    ratio = pictures[0].shape[0] / pictures[0].shape[1]
    with styled():
        width = TEXT_WIDTH / MAX_COLUMNS
        figure = new_figure(columns * width, rows * ((width - PADDING) * ratio + TITLE_HEIGHT))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, panel, picture in zip(grid.flat, panels, pictures, strict=False):
            axes.imshow(picture, interpolation="none")
            axes.set_title(panel.title)
        return save_figure(figure, stem, dpi=PICTURE_DPI)
