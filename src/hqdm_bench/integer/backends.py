"""Which implementation multiplies, decided by what this processor computes right."""

import functools
import itertools
from typing import Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.kernels import ExactFloatKernel, Kernel, ReferenceKernel, accumulate
from hqdm_bench.integer.onednn import OneDNNKernel

__all__ = ["BACKENDS", "Backend", "choose_kernel", "find_fault"]

Backend = Literal["auto", "cpu", "exact_float", "reference"]
BACKENDS: tuple[Backend, ...] = ("auto", "cpu", "exact_float", "reference")
KERNELS: dict[str, type[Kernel]] = {
    "cpu": OneDNNKernel,
    "exact_float": ExactFloatKernel,
    "reference": ReferenceKernel,
}


def choose_kernel(backend: str) -> tuple[type[Kernel], str]:
    """The kernel of a backend, and a sentence on why it is this one.

    Args:
        backend: ``cpu`` is oneDNN's int8, ``exact_float`` floating point that cannot round,
            ``reference`` 64-bit integers; ``auto`` is ``cpu`` where that is exact, else
            ``exact_float``.

    Raises:
        BenchError: an unknown name, or ``cpu`` on a processor where it is not exact.
    """
    if backend not in BACKENDS:
        raise BenchError(f"backend '{backend}' is unknown; choose one of {', '.join(BACKENDS)}")
    if backend in ("exact_float", "reference"):
        return KERNELS[backend], f"'{backend}' was asked for"
    fault = find_fault(OneDNNKernel)
    level = torch.backends.cpu.get_cpu_capability()
    if fault is None:
        return OneDNNKernel, f"oneDNN's int8 sums passed the check on this processor ({level})"
    if backend == "cpu":
        raise BenchError(
            f"oneDNN's int8 sums are not exact on this processor ({level}): {fault}; take backend "
            "'auto' or 'exact_float'"
        )
    return ExactFloatKernel, f"oneDNN's int8 sums are not exact here ({level}): {fault}"


@functools.lru_cache(maxsize=8)
def find_fault(kernel: type[Kernel]) -> str | None:
    """What a kernel computes wrong, or None: sums of extreme and of random values.

    Pairs of 255 * 127 leave 16 bits, so hardware that adds pairs there is found out. The answer
    depends on nothing but the machine and is kept.
    """
    if kernel is OneDNNKernel and not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return "this PyTorch has no int8 operators"
    random = generator("integer-self-check", 0, 0)
    geometries = (Geometry("linear"), Geometry("conv2d", (1, 1), (1, 1)))
    for geometry, channels, zero in itertools.product(geometries, (64, 35), (0, 7, 128, 255)):
        tail, size = ((3, 3), (5, 6)) if geometry.kind == "conv2d" else ((), ())
        codes = torch.randint(256, (4, channels, *size), generator=random, dtype=torch.uint8)
        weight = torch.randint(-128, 128, (34, channels, *tail), generator=random)
        weight = weight.to(torch.int8)
        codes[0], codes[1], weight[0], weight[1] = 255, 0, 127, -128
        try:
            wrong = _wrong(kernel, codes, weight, zero, geometry)
        except (RuntimeError, NotImplementedError) as error:
            return f"the operator does not run: {str(error).splitlines()[0]}"
        if wrong:
            return f"{wrong} of the sums of a {geometry.kind} with zero at {zero} differ"
    return None


def _wrong(
    kernel: type[Kernel], codes: Tensor, weight: Tensor, zero: int, geometry: Geometry
) -> int:
    if codes.dim() == 4:
        codes = codes.contiguous(memory_format=torch.channels_last)
    bound = 255 * 128 * weight[0].numel()
    ready = kernel(weight, torch.ones(len(weight)), geometry, bound)
    found = ready(codes, zero, 1.0, None)
    expected = accumulate(codes, zero, weight, geometry)
    return int((found != expected.float()).sum())
