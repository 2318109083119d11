"""Round to nearest: grids by a mean-error search, nothing learned.

The floor of every comparison: weights per output channel and inputs per tensor take the grids that
BRECQ's search finds (80 shrunk ranges, exponent 2.4), where every other method starts.
"""

from dataclasses import dataclass

from torch import nn

from hqdm_bench.methods.base import Student
from hqdm_bench.methods.ptq import PtqOptions, build_ptq_student
from hqdm_bench.methods.registry import register
from hqdm_bench.methods.request import Request

__all__ = ["RtnOptions", "build"]


@dataclass(frozen=True)
class RtnOptions(PtqOptions):
    """The common options of the post-training methods."""


@register(
    "rtn",
    RtnOptions,
    title="RTN",
    paper="initial quantizer of BRECQ, Li et al., ICLR 2021, https://arxiv.org/abs/2102.05426",
)
def build(options: RtnOptions, module: nn.Module, request: Request) -> Student:
    """A student rounded to nearest, not calibrated."""
    return build_ptq_student(options, module, request)
