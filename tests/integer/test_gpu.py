"""The GPU backend on a GPU: ``make test ARGS="-m gpu"``."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, MethodSpec
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.integer import choose_kernel, convert
from hqdm_bench.integer.agreement import compare_codes, different_codes
from hqdm_bench.integer.codes import CodeGrid, signed_codes
from hqdm_bench.integer.convert import _spec, _tensors
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.integer.kernels import ReferenceKernel, accumulate
from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.methods import build_student
from hqdm_bench.quantization import Rotation

pytestmark = pytest.mark.gpu
TIMES = (1, 501)


@pytest.fixture(scope="module")
def kernel() -> Any:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return choose_kernel("cuda", "cuda")[0]


@pytest.mark.parametrize("order", range(8))
def test_fused_codes_are_those_of_the_cpu(order: int, kernel: Any) -> None:
    random = torch.Generator().manual_seed(order)
    x = torch.randn(513, 3 * 2**order, generator=random) * 2
    signs = torch.randint(2, (x.shape[1],), generator=random) * 2.0 - 1
    centre = torch.randn(x.shape[1], generator=random)
    grid = CodeGrid(0.1, -7, 7, 0)
    rotation = BlockRotation(order, -1, signs, "butterfly") if order else None
    expected = signed_codes(x, grid, rotation, centre)
    far = BlockRotation(order, -1, signs.cuda(), "butterfly") if order else None
    found = kernel.encode(x.cuda(), grid, far, centre.cuda(), True)
    assert torch.equal(found.cpu().float(), expected)


@pytest.mark.parametrize("seed", range(12))
def test_sums_are_exact(seed: int, kernel: Any) -> None:
    random = torch.Generator().manual_seed(seed)
    channels, columns = ((64, 960), (192, 192), (3, 64), (37, 21))[seed % 4]
    window = (1 + seed % 2, 1), (seed % 3, 1), (1, 1 + seed % 2)
    codes = torch.randint(-128, 128, (3, channels, 17, 19), generator=random).to(torch.int8)
    weight = torch.randint(-128, 128, (columns, channels, 3, 3), generator=random).to(torch.int8)
    codes = codes.cuda().contiguous(memory_format=torch.channels_last)
    weight, zero = weight.cuda(), (0, 5, -128)[seed % 3]
    ones = torch.ones(columns, device="cuda")
    geometry = Geometry("conv2d", *window)
    found = kernel(weight, ones, geometry, 2**30)(codes, zero, 1.0, None)
    sums = accumulate(codes.cpu(), zero, weight.cpu(), geometry)
    assert torch.equal(found.cpu(), sums.float())
    rows = codes.permute(0, 2, 3, 1).reshape(-1, channels)
    matrix = weight[:, :, 1, 1].contiguous()
    found = kernel(matrix, ones, Geometry("linear"), 2**30)(rows, zero, 1.0, None)
    sums = accumulate(rows.cpu(), zero, matrix.cpu(), Geometry("linear"))
    assert torch.equal(found.cpu(), sums.float())


LAYERS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "conv": (
        lambda: nn.Conv2d(192, 384, 3, padding=1),
        (4, 192, 32, 32),
        {"rotation": Rotation(5)},
    ),
    "wide-block": (
        lambda: nn.Conv2d(128, 40, 3, padding=1),
        (2, 128, 16, 16),
        {"rotation": Rotation(7)},
    ),
    "plus": (
        lambda: nn.Conv2d(192, 64, 3, padding=1, stride=2),
        (2, 192, 16, 16),
        {
            "grid": "affine",
            "rotation": Rotation(5, "every_linear", smaller_block=True),
            "signs": True,
            "centred": True,
        },
    ),
    "two-digits": (
        lambda: nn.Conv2d(64, 64, 3, padding=1),
        (2, 64, 16, 16),
        {"rotation": Rotation(5), "bits": 8, "weight_bits": 8},
    ),
    "width": (
        lambda: nn.Conv2d(64, 64, 3, padding=1),
        (2, 64, 32, 32),
        {"rotation": Rotation(5, axis="width")},
    ),
    "linear": (lambda: nn.Linear(384, 1536), (4, 256, 384), {}),
}


@pytest.mark.parametrize("transform", ["matrix", "butterfly"])
@pytest.mark.parametrize("case", LAYERS)
@torch.no_grad()
def test_layers(case: str, transform: Any, kernel: Any, make_layer: Any) -> None:
    source, shape, options = LAYERS[case]
    layer, x = make_layer(source(), shape, **options)
    layer.use_transform(transform)
    near = IntegerLayer(_spec(layer), _tensors(layer), layer.step, ReferenceKernel, "near")
    layer, x = layer.cuda(), x.cuda()
    integer = IntegerLayer(_spec(layer), _tensors(layer), layer.step, kernel, "layer")
    layouts = [x, x.contiguous(memory_format=torch.channels_last)] if x.dim() == 4 else [x]
    for t, image in itertools.product(TIMES, layouts):
        layer.step.set(t)
        assert different_codes(layer, integer, image) == 0
        out, expected = integer(image), layer(image)
        assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()
        if transform == "butterfly":  # the same codes on the CPU, so the same sums
            expected = near(image.cpu())
            assert (out.cpu() - expected).abs().max() <= 1e-6 * expected.abs().max()


@torch.no_grad()
def test_a_whole_unet_and_its_graphs(kernel: Any, shared_toy: Any, recipe: Any) -> None:
    random = torch.Generator().manual_seed(4)
    context = shared_toy.context(torch.arange(2))
    calls = [
        (torch.randn(2, 3, 4, 4, generator=random), torch.full((2,), t), context) for t in TIMES
    ]
    for method, transform in itertools.product(("hqdm", "hqdm_plus"), ("matrix", "butterfly")):
        spec = MethodSpec(method, method, method, {})
        steps = dataclasses.replace(recipe, steps=len(TIMES))
        student = build_student(spec, shared_toy, Bits(4, 4), steps, 0)
        calibrate_on_calls(student, calls)
        student = student.use_transform(transform).cuda()  # type: ignore[arg-type]
        far = [tuple(x.cuda() for x in call) for call in calls]
        integer = convert(student)
        assert integer.report.backend == "triton"
        agreement = compare_codes(student, integer, far)
        assert agreement.share == 0, agreement.different
        plain: list[Tensor] = [integer(*call) for call in far]
        for found, call in zip(plain, far, strict=True):
            expected = student(*call)
            assert (found - expected).norm() < 0.02 * expected.norm()
        integer.use_graphs()
        for _ in range(2):
            for found, call in zip(plain, far, strict=True):
                assert torch.equal(integer(*call), found)
