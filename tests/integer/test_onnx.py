"""Exported layers and students in ONNX Runtime against the integer engine."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, MethodSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.integer import IntegerLayer, IntegerStudent, convert, export_onnx
from hqdm_bench.integer.kernels import ReferenceKernel, accumulate
from hqdm_bench.integer.onnx_layer import OnnxLayer, Trace
from hqdm_bench.integer.report import ConversionReport
from hqdm_bench.integer.weights import rotate_codes
from hqdm_bench.methods import MethodOptions, Request, build_student
from hqdm_bench.quantization import Rotation, StepIndex

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"ONNX export is optional: {package} is not installed")

import onnxruntime  # noqa: E402

STEPS = (1, 501)
CHANNEL, WIDTH = Rotation(5), Rotation(5, axis="width", smaller_block=True)
EVERY = Rotation(5, "every_linear", smaller_block=True)
PLUS = {"grid": "affine", "rotation": EVERY, "signs": True, "centred": True}


def conv(c_in: int, c_out: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, **options)


# source, input shape without its batch, options of make_layer
CASES: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, Any]]] = {
    "conv": (conv(64, 40, padding=1), (64, 7, 9), {"rotation": CHANNEL}),
    "conv-strided": (conv(32, 8, padding=1, stride=2), (32, 8, 7), {"rotation": CHANNEL}),
    "conv-1x1-no-bias": (conv(96, 33, 1, bias=False), (96, 4, 4), {"rotation": CHANNEL}),
    "conv-dilated": (conv(3, 8, padding=2, dilation=2), (3, 8, 8), {"grid": "affine"}),
    "two-digits": (
        conv(32, 9, padding=1),
        (32, 5, 5),
        {"rotation": CHANNEL, "weight_bits": 8, "bits": 8},
    ),
    "affine-rotated": (
        conv(64, 8, padding=1),
        (64, 5, 5),
        {"grid": "affine", "rotation": EVERY, "signs": True},
    ),
    "plus": (conv(64, 8, padding=1, stride=2), (64, 7, 6), PLUS),
    "static": (
        conv(3, 32, padding=1),
        (3, 8, 8),
        {"grid": "static", "bits": 8, "weight_bits": 8},
    ),
    "width-a3": (conv(8, 8, padding=1), (8, 6, 32), {"rotation": WIDTH, "bits": 3}),
    "width-a4": (conv(8, 8, padding=1), (8, 6, 32), {"rotation": WIDTH}),
    "per-step": (conv(32, 8, padding=1), (32, 5, 5), {"rotation": CHANNEL, "per_step": True}),
    "linear-rank-2": (nn.Linear(256, 24), (256,), {"rotation": CHANNEL}),
    "linear-rank-3": (nn.Linear(64, 24), (5, 64), {"rotation": CHANNEL}),
    "linear-per-step": (nn.Linear(64, 24), (5, 64), {"rotation": EVERY, "per_step": True}),
    "linear-plus": (nn.Linear(96, 24), (5, 96), PLUS),
    "linear-two-digits": (
        nn.Linear(64, 24),
        (5, 64),
        {"rotation": EVERY, "weight_bits": 8, "bits": 8},
    ),
    "conv1d": (nn.Conv1d(64, 24, 3, padding=1, stride=2), (64, 9), {"rotation": EVERY}),
    "conv1d-plus": (nn.Conv1d(32, 24, 3, padding=1), (32, 9), PLUS),
}
# Blocks of 8, and products of few rows: where BLAS and ONNX Runtime add in different orders.
SMALL_BLOCK = (conv(40, 24, padding=1), (40, 9, 9), {"rotation": EVERY})


class Side(nn.Module):
    """Layers side by side, each on its share of the columns of one matrix."""

    def __init__(self, layers: dict[str, nn.Module], shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.shapes = shapes

    def inputs(self, x: Tensor) -> dict[str, Tensor]:
        parts = x.split([int(np.prod(shape)) for shape in self.shapes.values()], 1)
        return {
            name: part.reshape(-1, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        inputs = self.inputs(x)
        return torch.cat([layer(inputs[name]).flatten(1) for name, layer in self.layers.items()], 1)


def run(path: Path, names: tuple[str, ...], call: tuple[Tensor, ...]) -> dict[str, Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(names, call, strict=True)}
    found = zip(session.get_outputs(), session.run(None, feed), strict=True)
    return {value.name: torch.from_numpy(array) for value, array in found}


def joined(outputs: dict[str, Tensor], name: str, kind: str) -> Tensor:
    """A probe, or its two bytes together, in int64."""
    if f"{name}:{kind}" in outputs:
        return outputs[f"{name}:{kind}"].long()
    return sum(
        int(end) * outputs[f"{name}:{kind}{end}"].long()
        for end in ("1", "128")
        if f"{name}:{kind}{end}" in outputs
    )


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@pytest.fixture(scope="module")
def same_product(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether PyTorch and ONNX Runtime add the products of a Hadamard block in one order."""
    from onnx import TensorProto, helper

    info, shape = helper.make_tensor_value_info, [None, None]
    entries = [info(name, TensorProto.FLOAT, shape) for name in ("x", "y", "z")]
    node = helper.make_node("MatMul", ["x", "y"], ["z"])
    graph = helper.make_graph([node], "product", entries[:2], entries[2:])
    path = tmp_path_factory.mktemp("product") / "product.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 32, generator=random), rotate_codes(torch.eye(32), 5, 0) * 32**-0.5
    return torch.equal(run(path, ("x", "y"), (x, y))["z"], x @ y)


@dataclasses.dataclass
class Exported:
    student: IntegerStudent
    path: Path
    x: Tensor

    def outputs(self, t: int) -> dict[str, Tensor]:
        call = (self.x, torch.full((len(self.x),), t))
        return run(self.path, ("x", "timesteps"), call)


@pytest.fixture(scope="module")
def exported(make_layer: Any, integer_of: Any, tmp_path_factory: Any) -> Exported:
    """All cases in one file."""
    cases = {**CASES, "small-block": SMALL_BLOCK}
    step = StepIndex(STEPS)
    layers: dict[str, nn.Module] = {}
    inputs = []
    for name, (source, shape, options) in cases.items():
        layer, x = make_layer(source, (3, *shape), **options)
        layers[name] = integer_of(layer, ReferenceKernel)
        layers[name].step = step
        inputs.append(x.flatten(1))
    network = Side(layers, {name: shape for name, (_, shape, _) in cases.items()})
    request = Request(Bits(4, 4), STEPS, 2, 0, "timesteps")
    report = ConversionReport("reference", "test", ())
    student = IntegerStudent(network, step, MethodOptions(), request, report)
    path = tmp_path_factory.mktemp("onnx") / "layers.onnx"
    x = torch.cat(inputs, 1)
    size = export_onnx(student, path, x[:1], torch.tensor([STEPS[0]]), probe=True)
    assert size == path.stat().st_size
    return Exported(student, path, x)


def expected_codes(layer: IntegerLayer, x: Tensor) -> tuple[Tensor, int]:
    """What the engine multiplies, as bytes or whole numbers, and what stands for zero."""
    codes, zero = layer.codes(channels_last(x)), layer.grid(layer.step.row).zero
    rotation = layer.rotation_of(x)
    if rotation is not None and layer._along_width:
        return rotate_codes(codes, rotation.order, -1).long(), 0
    return codes.long() + zero, zero


def expected_sums(layer: IntegerLayer, codes: Tensor, zero: int, x: Tensor) -> Tensor:
    """Sums of the digits of the weight, one below the other."""
    product = layer.product(layer.fold_order(layer.rotation_of(x)), layer.step.row)
    flat = layer.spec.geometry.kind == "conv1d"
    codes = codes.unsqueeze(2) if flat else codes
    parts = [accumulate(codes, zero, digit.weight, product.geometry) for digit, _ in product.parts]
    sums = torch.cat(parts, -1 if layer.spec.linear else 1)
    return sums.squeeze(2) if flat else sums


@pytest.mark.parametrize("t", STEPS)
@pytest.mark.parametrize("case", CASES)
def test_codes_and_sums_of_a_layer(
    case: str, t: int, exported: Exported, same_product: bool
) -> None:
    student = exported.student
    student.step.set(t)
    layer, outputs = student.integer_layers()[f"layers.{case}"], exported.outputs(t)
    name = f"layers.{case}"
    x = outputs[f"{name}:input"]
    assert torch.equal(x, student.network.inputs(exported.x)[case])
    codes, zero = expected_codes(layer, x)
    found = joined(outputs, name, "codes")
    if layer._along_width:
        found = found - found_zero(layer)
    if same_product or layer.spec.rotation is None:
        assert torch.equal(found, codes)
    else:
        assert (found != codes).float().mean() < 1e-3
    assert codes.unique().numel() > 3
    sums = joined(outputs, name, "sums")
    assert torch.equal(sums, expected_sums(layer, found, zero, x))


def found_zero(layer: IntegerLayer) -> int:
    """The whole number that stands for zero in the bytes of codes rotated along the width."""
    bound = 2**5 * layer.grid(0).high
    return bound if 2 * bound <= 255 else 64 + 128 * ((bound + 64) // 128)


@pytest.mark.parametrize("t", STEPS)
def test_outputs_of_layers(t: int, exported: Exported) -> None:
    student = exported.student
    outputs = exported.outputs(t)
    student.step.set(t)
    inputs = student.network.inputs(exported.x)
    found, start = outputs["output"], 0
    for name, layer in student.network.layers.items():
        expected = layer(channels_last(inputs[name])).flatten(1)
        own = found[:, start : start + expected.shape[1]]
        start += expected.shape[1]
        if name != "small-block":
            assert (own - expected).abs().max() <= 1e-6 * expected.abs().max(), name
    assert start == found.shape[1]


def test_small_blocks_may_round_elsewhere(exported: Exported) -> None:
    """BLAS adds blocks of 8 in another order: codes move where the quotient is at a tie."""
    layer, name = exported.student.integer_layers()["layers.small-block"], "layers.small-block"
    exported.student.step.set(STEPS[1])
    outputs = exported.outputs(STEPS[1])
    x = outputs[f"{name}:input"]
    assert layer.rotation_of(x).order == 3
    codes, zero = expected_codes(layer, x)
    found = joined(outputs, name, "codes")
    moved = found != codes
    assert (found - codes).abs().max() <= 1
    quotient = layer.rotation_of(x)(x) / layer.grid(1).scale
    assert ((quotient[moved] % 1 - 0.5).abs() < 1e-4).all()
    assert torch.equal(outputs[f"{name}:sums"].long(), expected_sums(layer, found, zero, x))


def test_extreme_bytes_and_the_nearest_row(
    integer_of: Any, make_layer: Any, tmp_path: Path
) -> None:
    """All weights and bytes at their ends, where pairs of products leave 16 bits."""
    layer, x = make_layer(nn.Linear(64, 8), (4, 64), grid="affine", bits=8, weight_bits=8)
    integer = integer_of(layer, ReferenceKernel)
    integer.weight_zero.fill_(128)
    integer.packed.view(8, 64)[:4], integer.packed.view(8, 64)[4:] = 0, 255
    step = integer.step = StepIndex(STEPS, "pick")
    network = Side({"ends": integer}, {"ends": (64,)})
    request = Request(Bits(8, 8), STEPS, 2, 0, "timesteps")
    report = ConversionReport("reference", "test", ())
    student = IntegerStudent(network, step, MethodOptions(), request, report)
    x, path = 1e3 * x.sign(), tmp_path / "ends.onnx"
    x[0], x[1], x[2] = 1e3, -1e3, 40 * layer.activation.scale.detach().mean()
    export_onnx(student, path, x, torch.ones(4, dtype=torch.int64), probe=True)
    seen = []
    for t in (0, 1, 251, 252, 999):  # 251 is as near to 1 as to 501
        step.set(t)
        outputs = run(path, ("x", "timesteps"), (x, torch.full((4,), t)))
        codes, zero = expected_codes(integer, x)
        assert {0, 255} < set(codes.unique().tolist())
        assert torch.equal(outputs["layers.ends:codes"].long(), codes)
        sums = expected_sums(integer, codes, zero, x)
        assert torch.equal(outputs["layers.ends:sums"].long(), sums)
        seen.append(float(codes[2, 0]))
    assert seen[0] == seen[2] != seen[3] == seen[4]
    with pytest.raises(Exception, match="out of data bounds"):
        run(path, ("x", "timesteps"), (x, torch.tensor([1, 1, 2, 1])))


@pytest.mark.parametrize("t", [[2, 2, 2], [1, 501, 1], [502, 502, 502]])
def test_a_timestep_without_a_row_stops_the_session(t: list[int], exported: Exported) -> None:
    with pytest.raises(Exception, match="out of data bounds"):
        run(exported.path, ("x", "timesteps"), (exported.x, torch.tensor(t)))


@pytest.mark.parametrize("method", ["hqdm_plus", pytest.param("hqdm", marks=pytest.mark.slow)])
def test_students(method: str, shared_toy: Any, recipe: Any, tmp_path: Path) -> None:
    """A whole UNet at every step: same codes for the same inputs of layers, outputs to rounding."""
    recipe = dataclasses.replace(recipe, steps=len(STEPS))
    spec = MethodSpec(method, method, method, {})
    made = build_student(spec, shared_toy, Bits(4, 4), recipe, 0)
    random = torch.Generator().manual_seed(9)
    context = shared_toy.context(torch.arange(3)).detach()
    calls = [
        (torch.randn(3, 3, 4, 4, generator=random), torch.full((3,), t), context)
        for t in made.step.timesteps
    ]
    calibrate_on_calls(made, calls)
    student, path = convert(made), tmp_path / "student.onnx"
    export_onnx(student, path, *calls[0], probe=True)
    for call in calls:
        outputs = run(path, ("x", "timesteps", "context"), call)
        expected = student(*call)
        wrong = 0
        for name, layer in student.integer_layers().items():
            x = outputs[f"{name}:input"]
            codes, zero = expected_codes(layer, x)
            found = outputs[f"{name}:codes"].long()
            wrong += int((found != codes).sum())
            sums = expected_sums(layer, found, zero, x)
            assert torch.equal(outputs[f"{name}:sums"].long(), sums), name
        assert wrong <= 2  # products of few rows, see the small blocks
        # A tie that falls to the other side moves a code; the rest is rounding.
        assert (outputs["output"] - expected).norm() / expected.norm() < 0.02


def test_a_zero_point_beyond_a_byte_is_refused(integer_of: Any, make_layer: Any) -> None:
    layer, x = make_layer(nn.Linear(8, 4), (4, 8), grid="affine")
    layer.activation.zero.data[1] = -1
    integer = integer_of(layer, ReferenceKernel)
    with pytest.raises(BenchError, match="layer 'one': zero-point -1"):
        OnnxLayer(integer, "one", x.shape, len(STEPS), Trace())


def test_what_cannot_be_exported(
    shared_toy: Any, recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = MethodSpec("hqdm", "hqdm", "hqdm", {})
    made = build_student(spec, shared_toy, Bits(4, 16), recipe, 0)
    x, context = torch.randn(2, 3, 4, 4), shared_toy.context(torch.arange(2)).detach()
    calls = [(x, torch.full((2,), t), context) for t in made.step.timesteps]
    calibrate_on_calls(made, calls)
    student = convert(made)
    path = tmp_path / "student.onnx"
    with pytest.raises(BenchError, match="these are not"):
        export_onnx(student, path, *calls[0])
    with pytest.raises(BenchError, match="by the timestep"):
        student.report = ConversionReport("reference", "test", ())
        export_onnx(student, path, x)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="pip install 'hqdm-bench\\[onnx\\]'"):
        export_onnx(student, path, *calls[0])
    assert not path.exists()
