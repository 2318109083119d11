"""Triton's kernels in its interpreter; `test_triton.py` runs this file in a process of its own.

The interpreter replaces the compiler when Triton is imported, so a process has one or the other.
"""

import dataclasses
import itertools
import os
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, MethodSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.hadamard import BlockRotation, sylvester
from hqdm_bench.integer import convert, find_fault, load, save
from hqdm_bench.integer.agreement import compare_codes, different_codes
from hqdm_bench.integer.codes import CodeGrid, signed_codes
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.kernels import ReferenceKernel, accumulate
from hqdm_bench.methods import build_student
from hqdm_bench.models import UNet
from hqdm_bench.quantization import Rotation

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs inside test_triton.py, in Triton's interpreter", allow_module_level=True)
if "hqdm_bench.integer.triton_kernel" in sys.modules:
    pytest.fail("importing hqdm_bench.integer imports Triton", pytrace=False)

from hqdm_bench.integer.triton_kernel import InterpretedKernel, TritonKernel
from hqdm_bench.integer.triton_product import multiply, tile_of

TIMES = (1, 501)


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotation_of(order: int, channels: int, dim: int, transform: Any, signs: bool) -> Any:
    flip = torch.randint(2, (channels,), generator=random_of(9)) * 2.0 - 1 if signs else None
    return BlockRotation(order, dim, flip, transform) if order else None


@pytest.mark.parametrize("transform", ["matrix", "butterfly"])
@pytest.mark.parametrize("order", range(8))
def test_codes_are_the_plain_formulas(order: int, transform: Any) -> None:
    """Bit for bit, for every block size, both layouts, with and without centre and signs."""
    random = random_of(order)
    channels = 3 * 2**order
    x = torch.randn(2, channels, 3, 5, generator=random) * 2
    last = x.contiguous(memory_format=torch.channels_last)
    for signs, centred, bits in itertools.product((False, True), (False, True), (3, 8)):
        limit = 2 ** (bits - 1) - 1
        centre = torch.randn(channels, generator=random) if centred else None
        grid = CodeGrid(0.7 / limit, -limit, limit, 0)
        for image in (x, last):
            rotation = rotation_of(order, channels, 1, transform, signs)
            found = InterpretedKernel.encode(image, grid, rotation, centre, False)
            shaped = None if centre is None else centre.view(1, -1, 1, 1)
            assert torch.equal(found.float(), signed_codes(image, grid, rotation, shaped))
            assert found.is_contiguous(memory_format=torch.channels_last)
        rows = last.permute(0, 2, 3, 1)[..., :channels].reshape(-1, channels)
        rotation = rotation_of(order, channels, -1, transform, signs)
        found = InterpretedKernel.encode(rows, grid, rotation, centre, True)
        assert torch.equal(found.float(), signed_codes(rows, grid, rotation, centre))


@pytest.mark.parametrize("order", [0, 3, 5, 7])
def test_codes_are_those_of_float64_away_from_ties(order: int) -> None:
    x = torch.randn(41, 128, generator=random_of(1))
    rotation = rotation_of(order, 128, -1, "butterfly", False)
    grid = CodeGrid(0.25, -7, 7, 0)
    found = InterpretedKernel.encode(x, grid, rotation, None, True)
    exact = x.double().view(-1, 2**order) @ sylvester(order)
    exact = (exact / grid.scale).view(x.shape)
    sure = ((exact - exact.floor()) - 0.5).abs() > 1e-5
    assert sure.double().mean() > 0.99
    assert torch.equal(found[sure].double(), exact.round().clamp(-7, 7)[sure])


def test_ties_go_to_even_and_shifted_grids_are_shifted() -> None:
    x = torch.arange(-20, 20)[None] / 4
    found = InterpretedKernel.encode(x, CodeGrid(0.5, -7, 7, 0), None, None, True)
    assert torch.equal(found.double(), (x.double() / 0.5).round().clamp(-7, 7))
    low, high = -200, 55  # an eight-bit grid whose zero is far up
    zero = TritonKernel.zero_code(low, high)
    found = InterpretedKernel.encode(x * 30, CodeGrid(0.5, low, high, zero), None, None, True)
    expected = (x.double() * 60).round().clamp(low, high)
    assert torch.equal(found.double() - zero, expected)
    assert found.min() == -128


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(-7, 7, 0), (-128, 127, 0), (0, 200, -128), (-200, 55, 72)]
)
def test_the_zero_of_signed_codes(low: int, high: int, zero: int) -> None:
    assert TritonKernel.zero_code(low, high) == zero


def test_a_zero_out_of_reach_is_refused() -> None:
    for low, high in ((-300, -285), (1, 256), (-130, 130)):
        with pytest.raises(BenchError, match="does not fit signed bytes"):
            TritonKernel.zero_code(low, high)


@pytest.mark.parametrize("seed", range(30))
def test_convolutions_are_exact(seed: int) -> None:
    """Any shape, stride, padding and dilation; extreme bytes; zeros that are none."""
    random = random_of(seed)

    def pick(*choices: int) -> int:
        return choices[int(torch.randint(len(choices), (1,), generator=random))]

    window = [(pick(1, 2, 3), pick(1, 2)), (pick(0, 1, 2), pick(0, 1)), (pick(1, 2), pick(1, 3))]
    geometry = Geometry("conv2d", *window)
    kernel = (pick(1, 2, 3), pick(1, 3))
    channels, columns = pick(1, 3, 16, 33, 64, 70), pick(1, 7, 20, 33)
    size = (pick(1, 3), channels, pick(5, 9), pick(8, 11))
    codes = torch.randint(-128, 128, size, generator=random).to(torch.int8)
    weight = torch.randint(-128, 128, (columns, channels, *kernel), generator=random)
    codes[0], weight[0] = -128, -128
    codes = codes.contiguous(memory_format=torch.channels_last)
    check(codes, weight.to(torch.int8), geometry, pick(0, 5, -128, 127), random)


@pytest.mark.parametrize("seed", range(12))
def test_matrix_products_are_exact(seed: int) -> None:
    """With and without PyTorch's own int8 product."""
    random = random_of(seed)
    rows, channels = ((17, 64), (16, 64), (40, 35), (1, 200))[seed % 4]
    columns = 24 if seed % 2 else 40
    codes = torch.randint(-128, 128, (rows, channels), generator=random).to(torch.int8)
    weight = torch.randint(-128, 128, (columns, channels), generator=random).to(torch.int8)
    check(codes, weight, Geometry("linear"), (0, 5, -128)[seed % 3], random)
    kernel = InterpretedKernel(weight, torch.ones(columns), Geometry("linear"), 2**30)
    assert kernel.fits_int_mm(codes) == (rows > 16 and channels % 8 == 0)


def check(
    codes: Tensor, weight: Tensor, geometry: Geometry, zero: int, random: torch.Generator
) -> None:
    kernel = InterpretedKernel(weight, torch.ones(len(weight)), geometry, 2**30)
    sums = accumulate(codes, zero, weight, geometry)
    assert torch.equal(kernel(codes, zero, 1.0, None), sums.float())
    # Scales and bias in float32, in the type that is asked for.
    scale, bias = torch.rand(len(weight), generator=random), torch.randn(len(weight))
    kernel = InterpretedKernel(weight, scale, geometry, 2**30)
    expected = ReferenceKernel(weight, scale, geometry, 2**30)(codes, zero, 0.01, bias)
    found = kernel(codes, zero, 0.01, bias)
    assert (found - expected).abs().max() <= 3e-7 * expected.abs().max()
    half = kernel(codes, zero, 0.01, bias, torch.float16)
    assert half.dtype == torch.float16
    assert torch.equal(half, found.half())


def test_the_self_check_covers_signed_kernels() -> None:
    assert find_fault(InterpretedKernel) is None

    class Wrong(InterpretedKernel):
        def __call__(self, codes: Tensor, zero: int, *rest: Any, **more: Any) -> Tensor:
            return super().__call__(codes, 0, *rest, **more)

    assert "differ" in (find_fault(Wrong) or "")


@pytest.mark.parametrize(
    ("pixels", "columns", "processors", "size"),
    [
        (32768, 960, 132, (128, 256)),
        (2048, 960, 132, (128, 128)),
        (512, 960, 132, (64, 64)),
        (3, 5, 132, (16, 16)),
        (100, 40, 1, (128, 64)),
    ],
)
def test_tiles(pixels: int, columns: int, processors: int, size: tuple[int, int]) -> None:
    tile = tile_of(pixels, columns, 960, processors)
    assert (tile.rows, tile.columns) == size
    assert tile.chunk == 64


def test_too_many_pixels_are_refused() -> None:
    codes = torch.empty(1, dtype=torch.int8).expand(2**15, 2**9, 2**8, 1)
    with pytest.raises(BenchError, match="smaller batch"):
        multiply(codes, codes[:1, :1, :1], Geometry("conv2d"), None, torch.float32)  # type: ignore[arg-type]


CHANNEL = Rotation(5)
EVERY = Rotation(5, "every_linear", smaller_block=True)
WIDTH = Rotation(5, axis="width", smaller_block=True)
LAYERS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "conv": (lambda: nn.Conv2d(64, 20, 3, padding=1), (2, 64, 5, 6), {"rotation": CHANNEL}),
    "two-digits": (
        lambda: nn.Conv2d(64, 9, 3, padding=1),
        (1, 64, 5, 5),
        {"rotation": CHANNEL, "bits": 8, "weight_bits": 8},
    ),
    "strided-affine-plus": (
        lambda: nn.Conv2d(64, 8, 3, padding=1, stride=2),
        (2, 64, 5, 6),
        {"grid": "affine", "rotation": EVERY, "signs": True, "centred": True},
    ),
    "static": (
        lambda: nn.Conv2d(3, 16, 3, padding=1),
        (2, 3, 6, 6),
        {"grid": "static", "bits": 8, "weight_bits": 8},
    ),
    "width": (lambda: nn.Conv2d(8, 8, 3, padding=1), (1, 8, 4, 32), {"rotation": WIDTH}),
    "conv1d": (lambda: nn.Conv1d(64, 9, 3, padding=1), (2, 64, 7), {"rotation": EVERY}),
    "linear": (lambda: nn.Linear(64, 24), (3, 7, 64), {"rotation": EVERY}),
    "linear-odd": (lambda: nn.Linear(35, 3), (7, 35), {"grid": "affine", "bits": 8}),
}


@pytest.mark.parametrize("transform", ["matrix", "butterfly"])
@pytest.mark.parametrize("case", LAYERS)
@torch.no_grad()
def test_layers(case: str, transform: Any, make_layer: Any, integer_of: Any) -> None:
    source, shape, options = LAYERS[case]
    layer, x = make_layer(source(), shape, **options)
    layer.use_transform(transform)
    integer = integer_of(layer, InterpretedKernel)
    reference = integer_of(layer, ReferenceKernel)
    layouts = [x, x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else [x]
    for t, image in itertools.product(TIMES, layouts):
        layer.step.set(t)
        assert different_codes(layer, integer, image) == 0
        expected = reference(image)
        tolerance = 1e-6 * expected.abs().max()
        assert (integer(image) - expected).abs().max() <= tolerance
        # Codes of a half-precision input are those of its values; one rounding at the end.
        half = integer(image.bfloat16())
        assert half.dtype == torch.bfloat16
        expected = reference(image.bfloat16().float())
        assert (half - expected).abs().max() <= 2**-7 * expected.abs().max()


@pytest.fixture
def students(shared_toy: Any, recipe: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A student, its integer form on the CPU and in the interpreter, and calls of them."""

    def make(method: str, bits: str) -> Any:
        context = shared_toy.context(torch.arange(2))
        calls = [
            (torch.randn(2, 3, 4, 4, generator=random_of(t)), torch.full((2,), t), context)
            for t in TIMES
        ]
        steps = dataclasses.replace(recipe, steps=len(TIMES))
        spec = MethodSpec(method, method, method, {})
        student = build_student(spec, shared_toy, Bits.parse(bits), steps, 0)
        calibrate_on_calls(student, calls)
        student.use_transform("butterfly")
        on_cpu = convert(student)
        for module in ("convert", "storage"):
            monkeypatch.setattr(
                sys.modules[f"hqdm_bench.integer.{module}"],
                "choose_kernel",
                lambda *_: (InterpretedKernel, "this is a test"),
            )
        return student, on_cpu, convert(student), calls

    return make


@torch.no_grad()
def test_every_code_of_a_unet_is_the_fake_quantized_one(students: Any) -> None:
    student, on_cpu, integer, calls = students("hqdm_plus", "w2a4")
    assert integer.report.backend == "triton, interpreted"
    assert {layer.container for layer in integer.report.layers} == {"int8"}
    agreement = compare_codes(student, integer, calls[1:])
    assert agreement.different == {}
    assert agreement.total > 1000
    found, expected = integer(*calls[0]), on_cpu(*calls[0])
    assert (found - expected).norm() < 0.02 * expected.norm()


@torch.no_grad()
def test_a_packed_student_and_half_precision(students: Any, shared_toy: Any, tmp_path: Any) -> None:
    _, on_cpu, integer, calls = students("hqdm", "w4a4")
    save(integer, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", shared_toy.unet)
    assert isinstance(again.network, UNet)
    found, expected = again(*calls[0]), on_cpu(*calls[0])
    assert (found - expected).norm() < 0.02 * expected.norm()
    again.use_precision(torch.bfloat16)
    assert next(again.network.out.parameters()).dtype == torch.bfloat16
    half = again(*calls[0])
    assert half.dtype == torch.float32
    # Bfloat16 between the layers moves codes: on random weights at four bits by as much as their
    # quantization does (0.4). Unrelated outputs would differ by 1.4.
    assert 0 < (half - found).norm() < 0.7 * found.norm()
    with pytest.raises(BenchError, match="before use_precision"):
        save(again, tmp_path / "other.safetensors")
    with pytest.raises(BenchError, match=r"cannot return torch\.bfloat16"):
        on_cpu.use_precision(torch.bfloat16)
