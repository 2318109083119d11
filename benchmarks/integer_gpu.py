"""Integer execution on a GPU against bfloat16: kernels, layers and whole UNets.

    python benchmarks/integer_gpu.py --output integer_gpu.json

Full-size UNets with random weights, W4A4 HQ-DM, one step table row. Times are medians of CUDA
events with the second-level cache overwritten before each, so that a kernel is not given what the
one before it left there; whole UNets are timed without that. TF32 is off.
"""

import argparse
import copy
import itertools
import json
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from integer_common import by_shape, calibrated_student, call_of, full_size, layer_inputs
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.integer import IntegerLayer, IntegerStudent, convert
from hqdm_bench.integer.agreement import compare_codes
from hqdm_bench.integer.codes import CodeGrid
from hqdm_bench.integer.kernels import Kernel
from hqdm_bench.methods import Student
from hqdm_bench.models import UNet

GIGA = 1e9
CACHE = 2**28  # bytes written to empty the second-level cache
SHAPES = ((32, 64, 64, 192), (32, 32, 32, 384), (16, 16, 16, 960), (16, 32, 32, 1152))


class Clock:
    """Median milliseconds of a call on the GPU."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.cache = torch.empty(CACHE, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Callable[[], object], cold: bool = True) -> float:
        """Milliseconds; ``cold`` empties the cache first."""
        for _ in range(3):
            call()
        times = []
        for _ in range(self.rounds):
            if cold:
                self.cache.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return statistics.median(times)


def machine() -> dict[str, Any]:
    import triton

    driver = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "gpu": torch.cuda.get_device_name(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "driver": driver,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }


def copy_bandwidth(clock: Clock) -> float:
    """10^9 bytes a second, read and written, of a large copy."""
    source = torch.empty(2**28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / clock(lambda: target.copy_(source)) * 1e3 / GIGA


def code_kernel(clock: Clock, kernel: type[Kernel], bandwidth: float) -> list[dict[str, Any]]:
    """Bytes a second of the fused kernel, and its share of the copy's; two passes beside it."""
    found = []
    grid = CodeGrid(0.3, -7, 7, 0)
    for shape, dtype in itertools.product(SHAPES, (torch.float32, torch.bfloat16)):
        x = torch.randn(shape, device="cuda").to(dtype).permute(0, 3, 1, 2)
        moved = x.numel() * (x.element_size() + 1)
        entry: dict[str, Any] = {"shape": list(shape), "dtype": str(dtype)}
        for transform in ("butterfly", "matrix"):
            rotation = BlockRotation(5, 1, None, transform)  # type: ignore[arg-type]
            time = clock(partial(kernel.encode, x, grid, rotation, None, False))
            entry[transform] = {"ms": time, "share": moved / time * 1e3 / GIGA / bandwidth}
        found.append(entry)
    return found


def layer_times(
    clock: Clock, unet: UNet, integer: IntegerStudent, call: tuple[Any, ...]
) -> list[dict[str, Any]]:
    """One entry a distinct shape, with how often it occurs."""

    def measure(name: str, layer: IntegerLayer, x: Tensor) -> dict[str, Any]:
        source = copy.deepcopy(unet.get_submodule(name)).bfloat16().cuda()
        return one_layer(clock, source, layer, x.bfloat16())

    return by_shape(integer, call, measure)


@torch.no_grad()
def one_layer(clock: Clock, source: nn.Module, layer: IntegerLayer, x: Tensor) -> dict[str, Any]:
    if x.dim() == 4:
        source = source.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    row, rotation = layer.step.row, layer.rotation_of(x)
    grid = layer.grid(row)
    codes = layer.kernel.encode(x, grid, rotation, None, layer.spec.linear)
    product = layer.product(layer.fold_order(rotation), row)
    entry, first = product._enter(codes), product.parts[0][1]
    macs = layer(x).numel() * torch.Size(layer.spec.shape[1:]).numel()
    times = {
        "bfloat16": clock(lambda: source(x)),
        "integer": clock(lambda: layer(x)),
        "encode": clock(lambda: layer.kernel.encode(x, grid, rotation, None, layer.spec.linear)),
        "multiply": clock(lambda: first(entry, grid.zero, 1.0, layer.bias, torch.bfloat16)),
    }
    return {"macs": macs, "weight_digits": len(product.parts), **times}


@torch.no_grad()
def tile_times(
    clock: Clock, integer: IntegerStudent, call: tuple[Any, ...]
) -> list[dict[str, Any]]:
    """Every tile size for every distinct convolution: what `SIZES` assumes, measured."""
    from hqdm_bench.integer.triton_product import SIZES, Epilogue, Tile, multiply, tile_of

    found, done = [], set()
    for name, x in layer_inputs(integer, call).items():
        spec = integer.integer_layers()[name].spec
        key = (spec.shape, spec.geometry, tuple(x.shape))
        if spec.geometry.kind != "conv2d" or key in done:
            continue
        done.add(key)
        c_out, c_in, kh, kw = spec.shape
        codes = torch.randint(-7, 8, (len(x), *x.shape[2:], c_in), device="cuda").to(torch.int8)
        weight = torch.randint(-100, 100, (c_out, kh, kw, c_in), device="cuda").to(torch.int8)
        ones = torch.ones(c_out, device="cuda")
        after = Epilogue(ones.int(), ones, None, 1.0, 0)
        chunk = tile_of(len(x), c_out, c_in, 1).chunk
        run = partial(multiply, codes, weight, spec.geometry, after, torch.bfloat16)
        times = {
            f"{rows}x{width}": clock(partial(run, Tile(rows, width, chunk, warps)))
            for rows, width, warps, _ in SIZES
        }
        found.append({"layer": name, "weight": list(spec.shape), "input": list(x.shape), **times})
    return found


@torch.no_grad()
def end_to_end(
    clock: Clock,
    unet: UNet,
    student: Student,
    call: tuple[Any, ...],
    mode: str,
) -> dict[str, float]:
    """Milliseconds of a forward pass, and bytes at the most."""
    half_call = tuple(x.bfloat16() if x.is_floating_point() else x for x in call)
    half = copy.deepcopy(unet).bfloat16().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(half, mode=mode)
    exact, mixed = convert(student), convert(student).use_precision(torch.bfloat16)
    calls: dict[str, Callable[[], object]] = {
        "float32": lambda: unet(*call),
        "bfloat16": lambda: half(*half_call),
        "bfloat16_compiled": lambda: compiled(*half_call),
        "fake_frozen": lambda: student(*call),
        "integer": lambda: exact(*call),
        "integer_bfloat16": lambda: mixed(*call),
    }
    found: dict[str, float] = {}
    for name, run in calls.items():
        torch.cuda.reset_peak_memory_stats()
        found[name] = clock(run, cold=False)
        found[f"{name}_bytes"] = float(torch.cuda.max_memory_allocated())
    for name, made in (("integer", exact), ("integer_bfloat16", mixed)):
        plain = made(*call)
        made.use_graphs()
        found[f"{name}_graphs"] = clock(lambda m=made: m(*call), cold=False)
        found[f"{name}_graphs_differ"] = float((made(*call) != plain).sum())
    expected = student(*call)
    found["difference"] = float((exact(*call) - expected).norm() / expected.norm())
    return found


def codes_identical(student: Student, call: tuple[Any, ...]) -> dict[str, Any]:
    """Codes that differ from the fake-quantized student's, by transform."""
    found = {}
    for transform in ("matrix", "butterfly"):
        student.use_transform(transform)  # type: ignore[arg-type]
        agreement = compare_codes(student, convert(student), [call])
        found[transform] = {"codes": agreement.total, "different": agreement.different}
    return found


def summary(result: dict[str, Any]) -> None:
    print(json.dumps(result["machine"]))
    print("codes that differ:", result["codes"])
    print(f"copy: {result['copy']:.0f} 10^9 bytes a second")
    for entry in result["code_kernel"]:
        print(entry["shape"], entry["dtype"], f"{entry['butterfly']['share']:.2f} of a copy")
    for batch, times in result["end_to_end"].items():
        print(f"batch {batch}:", {key: round(value, 3) for key, value in times.items()})
        best = min(times["integer_graphs"], times["integer_bfloat16_graphs"])
        print(f"  bfloat16 compiled / integer: {times['bfloat16_compiled'] / best:.2f}")
    for part in ("multiply", "integer", "bfloat16"):
        convs = [entry for entry in result["layers"] if entry["kind"] == "conv2d"]
        if convs:
            total = sum(entry[part] * entry["count"] for entry in convs)
            rate = sum(entry["macs"] * entry["count"] for entry in convs) / total * 1e3 / GIGA
            print(f"convolutions, {part}: {rate:.0f} 10^9 multiply-accumulates a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="imagenet", help="of config/models.yaml")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--mode", default="max-autotune", help="of torch.compile, for bfloat16")
    parser.add_argument("--skip-layers", action="store_true")
    parser.add_argument("--tiles", action="store_true", help="time every tile size as well")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark measures a GPU and torch sees none; for a CPU: make bench")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        result = measure(arguments)
    except BenchError as error:
        sys.exit(f"error: {error}")
    summary(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1), encoding="utf-8")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    clock = Clock(arguments.rounds)
    unet, shape, context = full_size(arguments.model)
    student = calibrated_student(unet, [call_of(shape, context, 1)]).cuda().freeze()
    unet = unet.cuda()

    def call(batch: int) -> tuple[Any, ...]:
        return tuple(x.cuda() for x in call_of(shape, context, batch))

    result: dict[str, Any] = {"machine": machine(), "model": arguments.model}
    result["codes"] = codes_identical(student, call(2))
    student.use_transform("butterfly")
    integer = convert(student)
    print(integer.report.summary())
    kernel = next(iter(integer.integer_layers().values())).kernel
    result["copy"] = copy_bandwidth(clock)
    result["code_kernel"] = code_kernel(clock, kernel, result["copy"])
    first = call(arguments.batches[0])
    result["layers"] = [] if arguments.skip_layers else layer_times(clock, unet, integer, first)
    result["tiles"] = tile_times(clock, integer, first) if arguments.tiles else []
    result["end_to_end"] = {
        batch: end_to_end(clock, unet, student, call(batch), arguments.mode)
        for batch in arguments.batches
    }
    return result


if __name__ == "__main__":
    main()
