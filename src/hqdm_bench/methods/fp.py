"""Full precision: the student is the teacher."""

from dataclasses import dataclass

from hqdm_bench.catalogue import Bits, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions
from hqdm_bench.methods.registry import register
from hqdm_bench.models import LatentDiffusion

__all__ = ["FullPrecisionOptions", "build"]


@dataclass(frozen=True)
class FullPrecisionOptions(MethodOptions):
    """There is nothing to choose."""


@register("fp", FullPrecisionOptions)
def build(
    options: FullPrecisionOptions, teacher: LatentDiffusion, bits: Bits, recipe: Recipe, seed: int
) -> Student:
    """The teacher's own UNet (shared, not copied); calibration and training leave it alone.

    Raises:
        BenchError: bits other than w32a32.
    """
    if not bits.full_precision:
        raise BenchError(f"method 'fp' is full precision (w32a32); {bits} needs another method")
    return Student(teacher.unet, None, "fp", options, bits, recipe, seed)
