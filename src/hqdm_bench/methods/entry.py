"""The one entry for any module: `quantize`."""

import inspect
from collections.abc import Iterable
from typing import Any

from torch import nn

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.registry import get_method
from hqdm_bench.methods.request import Request

__all__ = ["quantize"]

TIMESTEP_NAMES = ("timesteps", "timestep", "t")


def quantize(
    module: nn.Module,
    method: str = "hqdm",
    bits: str | Bits = "w4a4",
    preset: str = "as_code",
    timesteps: Iterable[int] | None = None,
    *,
    timestep_argument: str | None = None,
    rank: int = 32,
    seed: int = 0,
    **options: Any,
) -> Student:
    """Quantize a copy of any module with Linear, Conv1d or Conv2d layers.

    The student is called like the module and finds the row of its step tables by the timestep among
    the arguments. Its activation ranges are not set yet: run
    `calibrate(student, calls)`, then use it as it is or train ``student.parameter_groups()``.

    Args:
        module: a CompVis or diffusers UNet, a transformer, a Sequential, ...; it is not changed.
        method: registered name; `hqdm-bench methods` lists them.
        bits: of weights and activations, such as "w4a4".
        preset: "as_code" (the authors' released code) or "as_paper" (their text).
        timesteps: of the step tables, in any order; None makes one row for all times.
        timestep_argument: name of the argument that holds the timestep; found by itself if it is
            called ``timesteps``, ``timestep`` or ``t``.
        rank: of the low-rank updates.
        seed: of everything random in the student.
        options: of the method, over the preset; `hqdm-bench methods NAME` lists them.

    Returns:
        The student, weights quantized, activations not calibrated.

    Raises:
        BenchError: an unknown method, preset or option, bits or timesteps that cannot be, or no
            argument for the timestep.

    Example:
        >>> student = quantize(unet, "hqdm", "w4a4", timesteps=range(1, 1000, 50))
        >>> calibrate(student, calls)
        >>> save_student(student, "unet-w4a4.safetensors")
    """
    entry = get_method(method)
    resolved = entry.options.read({"preset": preset, **options}, method)
    width = Bits.parse(bits) if isinstance(bits, str) else bits
    rows = (0,) if timesteps is None else tuple(sorted({int(t) for t in timesteps}))
    if not rows:
        raise BenchError("timesteps is empty; give those of the sampler, or None for no steps")
    name = None if timesteps is None else _timestep_argument(module, timestep_argument)
    return entry.build(resolved, module, Request(width, rows, rank, seed, name))


def _timestep_argument(module: nn.Module, wanted: str | None) -> str:
    parameters = inspect.signature(type(module).forward).parameters
    for name in TIMESTEP_NAMES if wanted is None else (wanted,):
        if name in parameters:
            return name
    takes = ", ".join(list(parameters)[1:])
    asked = f"no argument '{wanted}'" if wanted else "no timestep argument by a usual name"
    raise BenchError(
        f"{type(module).__name__} has {asked}; it takes {takes}. Name it with timestep_argument, "
        "or leave timesteps out"
    )
