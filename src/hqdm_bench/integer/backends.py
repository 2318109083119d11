"""Which implementation multiplies, decided by what this processor computes right."""

import functools
import itertools
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.kernels import ExactFloatKernel, Kernel, ReferenceKernel, accumulate
from hqdm_bench.integer.onednn import OneDNNKernel

if TYPE_CHECKING:
    from hqdm_bench.integer.triton_kernel import TritonKernel

__all__ = ["BACKENDS", "Backend", "choose_kernel", "find_fault"]

Backend = Literal["auto", "cpu", "cuda", "exact_float", "reference"]
BACKENDS: tuple[Backend, ...] = ("auto", "cpu", "cuda", "exact_float", "reference")
KERNELS: dict[str, type[Kernel]] = {
    "cpu": OneDNNKernel,
    "exact_float": ExactFloatKernel,
    "reference": ReferenceKernel,
}


def choose_kernel(backend: str, device: str = "cpu") -> tuple[type[Kernel], str]:
    """The kernel of a backend, and a sentence on why it is this one.

    Args:
        backend: ``cpu`` is oneDNN's int8, ``cuda`` int8 tensor cores, ``exact_float`` floating
            point that cannot round, ``reference`` 64-bit integers; ``auto`` is ``cuda`` on a GPU,
            else ``cpu`` where that is exact, else ``exact_float``.
        device: type of the device that the student is on.

    Raises:
        BenchError: an unknown name, one that is of no use on this device, ``cpu`` on a processor
            where it is not exact, or ``cuda`` without Triton, without a GPU, or not exact there.
    """
    if backend not in BACKENDS:
        raise BenchError(f"backend '{backend}' is unknown; choose one of {', '.join(BACKENDS)}")
    if backend == "cuda" or (backend == "auto" and device == "cuda"):
        if device != "cuda":
            raise BenchError(
                f"backend 'cuda' multiplies on a GPU and the student is on {device}; convert "
                "student.cuda(), or take backend 'auto'"
            )
        return _cuda_kernel()
    if device != "cpu":
        raise BenchError(
            f"backend '{backend}' multiplies on the CPU and the student is on {device}; convert "
            "student.cpu(), or take backend 'cuda'"
        )
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


def _cuda_kernel() -> "tuple[type[TritonKernel], str]":
    kernel = import_triton_kernel()
    if not torch.cuda.is_available():
        raise BenchError(
            "backend 'cuda': no CUDA device is visible to torch; check nvidia-smi, or take backend "
            "'auto' for a student on the CPU"
        )
    name = torch.cuda.get_device_name()
    fault = find_fault(kernel)
    if fault is not None:
        raise BenchError(f"int8 sums through Triton are not exact on this GPU ({name}): {fault}")
    return kernel, f"int8 sums through Triton passed the check on this GPU ({name})"


def import_triton_kernel() -> "type[TritonKernel]":
    """The kernel of backend ``cuda``.

    Raises:
        BenchError: Triton is not installed, or does not load.
    """
    try:
        from hqdm_bench.integer.triton_kernel import TritonKernel
    except ImportError as error:
        raise BenchError(
            f"backend 'cuda' needs Triton, which does not load here ({error}); install the package "
            "'triton' (Linux), or take another backend"
        ) from None
    return TritonKernel


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
    shift = 128 if kernel.codes_dtype == torch.int8 else 0
    for geometry, channels, zero in itertools.product(geometries, (64, 35), (0, 7, 128, 255)):
        tail, size = ((3, 3), (5, 6)) if geometry.kind == "conv2d" else ((), ())
        codes = torch.randint(256, (4, channels, *size), generator=random, dtype=torch.uint8)
        weight = torch.randint(-128, 128, (34, channels, *tail), generator=random)
        weight = weight.to(torch.int8)
        codes[0], codes[1], weight[0], weight[1] = 255, 0, 127, -128
        try:
            wrong = _wrong(kernel, codes, weight, zero, geometry, shift)
        except (RuntimeError, NotImplementedError) as error:
            return f"the operator does not run: {str(error).splitlines()[0]}"
        if wrong:
            return f"{wrong} of the sums of a {geometry.kind} with zero at {zero} differ"
    return None


def _wrong(
    kernel: type[Kernel], codes: Tensor, weight: Tensor, zero: int, geometry: Geometry, shift: int
) -> int:
    codes = (codes.to(torch.int16) - shift).to(kernel.codes_dtype).to(kernel.device)
    weight, zero = weight.to(kernel.device), zero - shift
    if codes.dim() == 4:
        codes = codes.contiguous(memory_format=torch.channels_last)
    bound = 255 * 128 * weight[0].numel()
    ready = kernel(weight, torch.ones(len(weight), device=weight.device), geometry, bound)
    found = ready(codes, zero, 1.0, None)
    expected = accumulate(codes.cpu(), zero, weight.cpu(), geometry)
    return int((found.cpu() != expected.float()).sum())
