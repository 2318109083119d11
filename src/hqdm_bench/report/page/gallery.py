"""Images for the comparison slider: a row of the first images of every cell, as a data address."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hqdm_bench.catalogue import Catalogue, Cell, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.report.preview import PREVIEW_IMAGES, read_preview

__all__ = ["Gallery", "Sprite", "preview_cells", "read_gallery"]

BUDGET = 5_000_000  # characters of all images of a page
SMALL = 64  # pixels; larger images are photographs enough for JPEG
QUALITY = 85


@dataclass(frozen=True)
class Sprite:
    """Images of one cell in a row; ``size`` is the side of one in pixels."""

    model: str
    method: str
    title: str
    bits: str
    label: str
    count: int
    size: int
    address: str


@dataclass(frozen=True)
class Gallery:
    """Sprites in the order of the suite's cells, full precision first for every model."""

    sprites: tuple[Sprite, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Models that have images of full precision and of a student."""
        return tuple(dict.fromkeys(sprite.model for sprite in self.sprites))

    @property
    def count(self) -> int:
        """Images a cell."""
        return min((sprite.count for sprite in self.sprites), default=0)


def preview_cells(suite: Suite) -> tuple[Cell, ...]:
    """The cells a page shows images of: of every method and bit-width the first seed."""
    found: dict[tuple[str, str, str], Cell] = {}
    for entry in suite.models:
        scored = sorted(entry.scored, key=lambda cell: (cell.method != "fp", cell.seed))
        for cell in scored if len(scored) > 1 and scored[0].method == "fp" else ():
            found.setdefault((cell.model, cell.method, str(cell.bits)), cell)
    order = {cell: place for place, cell in enumerate(suite.cells)}
    models = [entry.model for entry in suite.models]
    return tuple(
        sorted(found.values(), key=lambda c: (models.index(c.model), c.method != "fp", order[c]))
    )


def read_gallery(root: Path, suite: Suite, catalogue: Catalogue) -> Gallery:
    """Encode as many images a cell as the page's budget allows, at most 12.

    Results made before previews were kept have none; they give an empty gallery.

    Raises:
        BenchError: a preview is damaged.
    """
    layout = Layout(root)
    cells = [cell for cell in preview_cells(suite) if layout.preview(cell).is_file()]
    shown = {cell.model for cell in cells if cell.method == "fp"}
    cells = [cell for cell in cells if cell.model in shown]
    rows = [read_preview(layout.preview(cell)) for cell in cells]
    if not rows:
        return Gallery(())
    one_each = sum(len(_address(row[:1])) for row in rows)
    count = max(1, min(PREVIEW_IMAGES, BUDGET // one_each, *map(len, rows)))
    return Gallery(
        tuple(
            Sprite(
                cell.model,
                cell.method,
                catalogue.method(cell.method).title,
                str(cell.bits),
                cell.bits.label,
                count,
                row.shape[1],
                _address(row[:count]),
            )
            for cell, row in zip(cells, rows, strict=True)
        )
    )


def _address(images: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]) -> str:
    row = np.concatenate(list(images), axis=1)
    buffer = io.BytesIO()
    if row.shape[0] <= SMALL:
        kind = "png"
        Image.fromarray(row).save(buffer, format="PNG", optimize=True)
    else:
        kind = "jpeg"
        Image.fromarray(row).save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
