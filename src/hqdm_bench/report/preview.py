"""The first images of a cell side by side in one small file, which outlives the image shards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import atomic_path, require_file
from hqdm_bench.report.arrays import first_images

__all__ = ["PREVIEW_IMAGES", "read_preview", "write_preview"]

PREVIEW_IMAGES = 12


def write_preview(path: Path, shards: Sequence[Path], images: int) -> None:
    """Write images 0 to 11 of a set, not selected, as one PNG row.

    Args:
        path: of the png.
        shards: of the set, in order; only the first ones are read.
        images: number of images in the set; a smaller set gives a shorter row.

    Raises:
        BenchError: a shard is missing or damaged.
    """
    pixels, _ = first_images(shards, min(images, PREVIEW_IMAGES))
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(list(pixels), axis=1)).save(temporary, format="PNG")


def read_preview(path: Path) -> npt.NDArray[np.uint8]:
    """(n, H, H, 3) images of a preview.

    Raises:
        BenchError: the file is missing, damaged, or not a row of square images.
    """
    try:
        with Image.open(require_file(path)) as picture:
            row = np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BenchError(f"{path} is not a whole png ({error}); delete it and run again") from error
    height, width, _ = row.shape
    if width % height:
        raise BenchError(
            f"{path} is {width} pixels wide and {height} high, not a row of square images; delete "
            "it and run again"
        )
    return row.reshape(height, width // height, height, 3).transpose(1, 0, 2, 3)
