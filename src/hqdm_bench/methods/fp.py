"""Full precision: the student is the module itself."""

from dataclasses import dataclass

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request

__all__ = ["FullPrecisionOptions", "build"]


@dataclass(frozen=True)
class FullPrecisionOptions(MethodOptions):
    """There is nothing to choose."""


@register(
    "fp",
    FullPrecisionOptions,
    title="Full precision",
    paper="the teacher itself, Rombach et al., CVPR 2022, https://arxiv.org/abs/2112.10752",
)
def build(options: FullPrecisionOptions, module: nn.Module, request: Request) -> Student:
    """The module itself (shared, not copied); calibration and training leave it alone.

    Raises:
        BenchError: bits other than w32a32.
    """
    if not request.bits.full_precision:
        raise BenchError(
            f"method 'fp' is full precision (w32a32); {request.bits} needs another method"
        )
    return Student(module, None, options, request)
