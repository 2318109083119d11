"""Integer execution against float32, bfloat16 and fake quantization: layers and whole UNets.

    OMP_NUM_THREADS=1 python benchmarks/integer.py --output integer.json

Full-size UNets with random weights, W4A4 HQ-DM, one step table row. Times are CPU seconds of the
process, the best of a few rounds, so that other work on the machine disturbs them less; with one
thread they are those of an idle machine, caches aside. The peaks of the same run say what share of
them a layer reaches.
"""

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from integer_common import calibrated_student, call_of, full_size, layer_inputs
from torch import Tensor, nn

from hqdm_bench.hadamard import sylvester
from hqdm_bench.integer import IntegerLayer, IntegerStudent, byte_report, choose_kernel, convert
from hqdm_bench.integer.codes import encode
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.methods import Student
from hqdm_bench.models import UNet
from hqdm_bench.quantization import QuantizedLayer

GIGA = 1e9


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """Best CPU time of a call, after one that does not count."""
    call()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def peaks() -> dict[str, float]:
    """Multiply-accumulates a second, in 10^9, of products that fit the caches."""
    a, b = torch.randn(512, 1024), torch.randn(1024, 512)
    count = 512 * 1024 * 512 / GIGA
    found = {"float32": count / seconds(lambda: a @ b, 20)}
    half, other = a.bfloat16(), b.bfloat16()
    found["bfloat16"] = count / seconds(lambda: half @ other, 20)
    weight = torch.randint(-127, 128, (512, 1024), dtype=torch.int8)
    kernel = choose_kernel("auto")[0](weight, torch.ones(512), Geometry("linear"), 2**30)
    codes = torch.randint(0, 15, (512, 1024), dtype=torch.uint8)
    found["int8"] = count / seconds(lambda: kernel(codes, 7, 1.0, None), 20)
    return found


class AuthorsForm(nn.Module):
    """A layer in the released form: dense C x C rotations, the weight built in every call."""

    def __init__(self, layer: QuantizedLayer) -> None:
        super().__init__()
        self.layer = copy.copy(layer)
        self.layer._frozen = None
        self.rotation: Tensor | None = None
        if layer.rotation is not None and layer.in_channels % 2**layer.rotation.order == 0:
            block = sylvester(layer.rotation.order).float()
            self.rotation = torch.block_diag(*[block] * (layer.in_channels // len(block)))

    def forward(self, x: Tensor) -> Tensor:
        """Output of the layer."""
        layer, row = self.layer, self.layer.step.row
        if self.rotation is None or layer.rotation_of(x) is None:
            return layer._operate(layer.activation(x, row), layer.weight(row))
        rows = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
        flat = rows.reshape(-1, rows.shape[-1])
        flat = layer.activation(flat @ self.rotation, row) @ self.rotation
        rows = flat.view(rows.shape)
        rows = rows.permute(0, 3, 1, 2).contiguous() if x.dim() == 4 else rows
        return layer._operate(rows, layer.weight(row))


def authors_form(student: Student) -> Student:
    """The student with every low-bit layer in the released form; weights are shared."""
    layers = student.low_bit_layers()
    instead: dict[int, object] = {id(layer): AuthorsForm(layer) for layer in layers.values()}
    shared = {id(p): p for p in [*student.parameters(), *student.buffers()]}
    network = copy.deepcopy(student.network, {**shared, **instead, id(student.step): student.step})
    return Student(network, student.step, student.options, student.request)


def layer_times(
    unet: UNet, student: Student, integer: IntegerStudent, call: tuple[Any, ...], rounds: int
) -> list[dict[str, Any]]:
    """One entry a distinct shape, with how often it occurs."""
    inputs = layer_inputs(integer, call)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, layer in integer.integer_layers().items():
        x, spec = inputs[name], layer.spec
        key = (spec.shape, spec.geometry, tuple(x.shape), spec.rotation is None)
        if key in found:
            found[key]["count"] += 1
            continue
        found[key] = {
            "layer": name,
            "count": 1,
            "kind": spec.geometry.kind,
            "weight": list(spec.shape),
            "input": list(x.shape),
            **one_layer(unet.get_submodule(name), student, layer, x, name, rounds),
        }
    return list(found.values())


@torch.no_grad()
def one_layer(
    source: nn.Module, student: Student, layer: IntegerLayer, x: Tensor, name: str, rounds: int
) -> dict[str, float]:
    fake, plain = student.quantized_layers()[name], x.contiguous()
    half = copy.deepcopy(source).bfloat16()
    x_half = plain.bfloat16()
    row, rotation = layer.step.row, layer.rotation_of(x)
    grid = layer.grid(row)
    codes = encode(x, grid, rotation, None, layer.spec.linear)
    product = layer.product(layer.fold_order(rotation), row)
    kernel = product.parts[0][1]
    entry = product._enter(codes)
    macs = layer(x).numel() * torch.Size(layer.spec.shape[1:]).numel()
    times = {
        "float32": seconds(lambda: source(plain), rounds),
        "bfloat16": seconds(lambda: half(x_half), rounds),
        "fake": seconds(lambda: fake(plain), rounds),
        "integer": seconds(lambda: layer(x), rounds),
        "encode": seconds(lambda: encode(x, grid, rotation, None, layer.spec.linear), rounds),
        "multiply": seconds(lambda: kernel(entry, grid.zero, 1.0, layer.bias), rounds),
    }
    return {"macs": macs, "weight_digits": len(product.parts), **times}


@torch.no_grad()
def end_to_end(
    unet: UNet, student: Student, integer: IntegerStudent, call: tuple[Any, ...], rounds: int
) -> dict[str, float]:
    """Seconds of a forward pass, and how far the integer one is from the fake-quantized."""
    released = authors_form(student)

    def half() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return unet(*call)

    expected = student(*call)
    return {
        "float32": seconds(lambda: unet(*call), rounds),
        "bfloat16": seconds(half, rounds),
        "fake_frozen": seconds(lambda: student(*call), rounds),
        "fake_released": seconds(lambda: released(*call), 1),
        "integer": seconds(lambda: integer(*call), rounds),
        "difference": float((integer(*call) - expected).norm() / expected.norm()),
    }


def summary(result: dict[str, Any]) -> None:
    print(json.dumps(result["machine"]))
    print("10^9 multiply-accumulates a second:", {k: round(v) for k, v in result["peaks"].items()})
    for batch, times in result["end_to_end"].items():
        rounded = {key: round(value, 4) for key, value in times.items()}
        print(f"batch {batch}: {rounded}")
        for other in ("float32", "fake_released"):
            print(f"  {other} / integer: {times[other] / times['integer']:.2f}")
    convs = [entry for entry in result["layers"] if entry["kind"] == "conv2d"]
    if convs:
        macs = sum(entry["macs"] * entry["count"] for entry in convs)
        for part in ("multiply", "integer", "float32"):
            rate = macs / GIGA / sum(entry[part] * entry["count"] for entry in convs)
            print(f"convolutions, {part}: {rate:.0f}, {rate / result['peaks']['int8']:.2f} of int8")
    print("bytes:", result["bytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="imagenet", help="of config/models.yaml")
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-layers", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    unet, shape, context = full_size(arguments.model)
    student = calibrated_student(unet, [call_of(shape, context, 1)])
    integer = convert(student)
    print(integer.report.summary())
    result: dict[str, Any] = {"machine": machine(), "model": arguments.model, "peaks": peaks()}
    result["bytes"] = byte_report(integer)
    student.freeze()
    result["end_to_end"] = {
        batch: end_to_end(unet, student, integer, call_of(shape, context, batch), arguments.rounds)
        for batch in arguments.batches
    }
    result["layers"] = []
    if not arguments.skip_layers:
        call = call_of(shape, context, arguments.batches[0])
        result["layers"] = layer_times(unet, student, integer, call, arguments.rounds)
    summary(result)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
