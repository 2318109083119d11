"""Whether ONNX Runtime computes the codes and sums of the integer engine, and how fast.

Two parts: products of Hadamard blocks (the only step before a code whose rounding depends on the
order of a sum), and the embedded ImageNet model, calibrated, over a 20-step trajectory.

    python benchmarks/onnx_runtime.py [--method hqdm] [--bits w4a4]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, load_catalogue
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.hadamard import block_rotate, sylvester
from hqdm_bench.integer import IntegerStudent, byte_report, convert, export_onnx
from hqdm_bench.integer.kernels import accumulate
from hqdm_bench.methods import build_student
from hqdm_bench.models import DDIM, load_latent_diffusion

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "src" / "hqdm_bench" / "artefacts" / "embedded"
Call = tuple[Tensor, Tensor, Tensor]


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: onnxruntime.InferenceSession, values: tuple[Tensor, ...]) -> dict[str, Tensor]:
    names = [entry.name for entry in model.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, values, strict=True)}
    outputs = zip(model.get_outputs(), model.run(None, feed), strict=True)
    return {entry.name: torch.from_numpy(array) for entry, array in outputs}


def products() -> None:
    """Share of the entries of x H that differ, and of the codes at a step size of a third."""
    info, shape = helper.make_tensor_value_info, [None, None]
    entries = [info(name, TensorProto.FLOAT, shape) for name in ("x", "y", "z")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "y"], ["z"])], "product", entries[:2], entries[2:]
    )
    opset = [helper.make_opsetid("", 18)]
    model = session(
        helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    )
    random = torch.Generator().manual_seed(0)
    print("block  rows   x H differs in share   codes differ of")
    for order in (1, 2, 3, 4, 5, 6, 7):
        for rows in (1, 2, 3, 4, 5, 8, 64, 2**17):
            wrong = moved = count = 0
            rounds = max(1, 2**14 // rows)
            for _ in range(rounds):
                x = torch.randn(rows, 2**order, generator=random)
                found = run(model, (x, sylvester(order).float()))["z"]
                expected = block_rotate(x, order, 1)
                wrong += int((found != expected).sum())
                moved += int(((found / 0.33).round() != (expected / 0.33).round()).sum())
                count += x.numel()
            if wrong:
                print(f"{2**order:5d} {rows:6d} {wrong / count:10.3f} {moved:20d} {count}")


def trajectory(method: str, bits: str) -> tuple[IntegerStudent, list[Call]]:
    catalogue = load_catalogue(ROOT)
    name = "mini-imagenet"
    teacher = load_latent_diffusion(catalogue.model(name), EMBEDDED / f"{name}.safetensors")
    spec = MethodSpec(method, method, method, {})
    student = build_student(spec, teacher, Bits.parse(bits), catalogue.recipe("mini"), 0)
    random = torch.Generator().manual_seed(4)
    context = teacher.context(torch.arange(8))
    assert context is not None
    ddim = DDIM.from_schedule(teacher.schedule, 20, 0.0)
    x = torch.randn(8, *teacher.latent_shape, generator=random)
    calls = []
    for index in reversed(range(20)):
        calls.append((x, torch.full((8,), int(ddim.timesteps[index])), context))
        x = ddim.step(x, teacher.unet(*calls[-1]), index)
    calibrate_on_calls(student, calls[::-1])
    return convert(student), calls


def compare(student: IntegerStudent, outputs: dict[str, Tensor]) -> tuple[int, int, int]:
    """Codes that differ, codes, and layers whose sums differ; layers given the same inputs."""
    wrong = count = layers = 0
    for name, layer in student.integer_layers().items():
        x = outputs[f"{name}:input"]
        image = x.dim() == 4
        grid, row = layer.grid(layer.step.row), layer.step.row
        expected = layer.codes(x.contiguous(memory_format=torch.channels_last) if image else x)
        codes = outputs[f"{name}:codes"].long()
        wrong += int((codes != expected.long() + grid.zero).sum())
        count += codes.numel()
        product = layer.product(layer.fold_order(layer.rotation_of(x)), row)
        flat = layer.spec.geometry.kind == "conv1d"
        codes = codes.unsqueeze(2) if flat else codes
        sums = torch.cat(
            [
                accumulate(codes, grid.zero, part.weight, product.geometry)
                for part, _ in product.parts
            ],
            -1 if layer.spec.linear else 1,
        )
        sums = sums.squeeze(2) if flat else sums
        layers += int(not torch.equal(sums, outputs[f"{name}:sums"].long()))
    return wrong, count, layers


def seconds(call: Callable[[], Any], rounds: int = 10) -> float:
    call()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def students(method: str, bits: str, folder: Path) -> None:
    student, calls = trajectory(method, bits)
    size = export_onnx(student, folder / "student.onnx", *calls[0])
    export_onnx(student, folder / "probe.onnx", *calls[0], probe=True)
    plain, probe = (session(str(folder / f"{name}.onnx")) for name in ("student", "probe"))
    print("bytes", {"onnx": size, **byte_report(student)})
    wrong = count = layers = 0
    differences = []
    for call in calls:
        expected = student(*call)
        found = run(plain, call)["output"]
        differences.append(float((found - expected).norm() / expected.norm()))
        parts = compare(student, run(probe, call))
        wrong, count, layers = wrong + parts[0], count + parts[1], layers + parts[2]
    print(f"codes: {wrong} of {count:,} differ; sums: {layers} layers differ")
    print("relative differences of predictions:", " ".join(f"{d:.1e}" for d in differences))
    times = {
        "onnx runtime": seconds(lambda: run(plain, calls[-1])),
        "integer": seconds(lambda: student(*calls[-1])),
    }
    print("ms a prediction of 8 images:", {name: round(1e3 * t, 1) for name, t in times.items()})


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", default="hqdm")
    parser.add_argument("--bits", default="w4a4")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("torch", torch.__version__, "onnxruntime", onnxruntime.__version__)
    products()
    with tempfile.TemporaryDirectory() as folder:
        students(arguments.method, arguments.bits, Path(folder))


if __name__ == "__main__":
    main()
