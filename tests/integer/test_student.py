"""Whole students: outputs, samples, refusals, files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe, load_catalogue
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_metadata
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.integer import byte_report, convert, export_onnx, load, save
from hqdm_bench.methods import Student, build_student, quantize
from hqdm_bench.models import DDIM, UNet, load_latent_diffusion

TIMES = (1, 501)
ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "src" / "hqdm_bench" / "artefacts" / "embedded"

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hqdm-w4a4": ("hqdm", "w4a4", {}),
    "hqdm-w8a8": ("hqdm", "w8a8", {}),
    "hqdm-w3a3": ("hqdm", "w3a3", {}),
    "hqdm-as-paper": ("hqdm", "w4a4", {"preset": "as_paper"}),
    "hqdm-asymmetric": ("hqdm", "w4a4", {"activation": "asymmetric"}),
    "plus-w2a4": ("hqdm_plus", "w2a4", {}),
    "plus-full": ("hqdm_plus", "w4a4", {"policy": "full"}),
    "double": ("double_hadamard", "w4a4", {"signs": "random"}),
    "efficientdm": ("efficientdm", "w4a4", {"zero_points": "integer"}),
    "qdiffusion": ("qdiffusion", "w4a8", {}),
    "ptqd": ("ptqd", "w4a4", {"correction": "no"}),
    "rtn": ("rtn", "w4a4", {}),
    "rtn-shared": ("rtn", "w4a4", {"activation_steps": "shared", "activation_grid": "symmetric"}),
}
Make = Callable[..., Student]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_students_compute_the_same(case: str, make: Make, calls: Any, tmp_path: Path) -> None:
    student = make(*CASES[case])
    integer = convert(student)
    assert not integer.report.kept
    assert list(integer.integer_layers()) == list(student.quantized_layers())
    for call in calls:
        expected = student(*call)
        # A tie that falls to the other side moves a code; the rest is rounding.
        assert relative(integer(*call), expected) < 0.02
    # Packed and read back into a module of other weights: bit for bit the same.
    sizes = save(integer, tmp_path / "model.safetensors", note="x")
    again = load(tmp_path / "model.safetensors", UNet(**_params(student)))
    for call in calls:
        assert torch.equal(again(*call), integer(*call))
    assert sizes["packed"] < sizes["float32"]
    assert read_metadata(tmp_path / "model.safetensors")["note"] == "x"
    held = (tmp_path / "model.safetensors").stat().st_size
    assert sizes["packed"] < held < sizes["packed"] + 100_000  # the header


@pytest.mark.parametrize("options", [{}, {"activation_steps": "shared"}])
@torch.no_grad()
def test_quantized_attention_stays_as_the_student_computes_it(
    make: Make, calls: Any, options: dict[str, str], tmp_path: Path
) -> None:
    student = make("rtn", "w4a4", {"attention": "quantized", **options})
    integer = convert(student)
    names = tuple(student.quantized_attention())
    assert integer.report.fake_attention == names == tuple(integer.quantized_attention())
    assert not integer.report.kept
    assert f"products of {len(names)} attentions are fake-quantized" in integer.report.summary()
    plain = convert(make("rtn", "w4a4", options))
    for call in calls:
        expected = student(*call)
        assert relative(integer(*call), expected) < 0.02
        assert relative(plain(*call), expected) > 0.02
    for name, attention in student.quantized_attention().items():
        own = integer.quantized_attention()[name]
        assert own is not attention
        assert own.query.step is integer.step
    sizes = save(integer, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", UNet(**_params(student)))
    assert again.report.fake_attention == names
    for call in calls:
        assert torch.equal(again(*call), integer(*call))
    rows = 1 if options else len(TIMES)
    without = byte_report(plain)
    # Four step sizes and three zero-points in float32.
    assert sizes["tables"] - without["tables"] == len(names) * 7 * 4 * rows
    assert {key: sizes[key] for key in ("full_precision", "float32")} == {
        key: without[key] for key in ("full_precision", "float32")
    }
    with pytest.raises(BenchError, match="products of these attentions are fake-quantized"):
        export_onnx(integer, tmp_path / "model.onnx", *calls[0])


def _params(student: Student) -> dict[str, Any]:
    config = dataclasses.asdict(student.network.config)
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in config.items()
    }


def test_every_layer_gets_the_fake_layers_codes(make: Make, calls: Any) -> None:
    """The layers of both students, each given what the integer student feeds it."""
    student = make("hqdm", "w4a4", {})
    integer = convert(student)
    seen: dict[str, Tensor] = {}
    for name, layer in integer.integer_layers().items():
        layer.register_forward_hook(lambda _, args, out, name=name: seen.update({name: args[0]}))
    with torch.no_grad():
        integer(*calls[1])
        student.step.set(TIMES[1])
        for name, layer in student.quantized_layers().items():
            new = integer.integer_layers()[name]
            x = seen[name]
            scale = new.grid(1).scale
            fake = layer.activation(layer.quantizer_input(x), layer.step.row)
            assert torch.equal(new.codes(x) * scale, fake), name
            assert relative(new(x), layer(x)) < 1e-6, name


def test_mini_unet_and_a_20_step_trajectory() -> None:
    """The difference to the fake-quantized student, of a prediction and of the latents."""
    catalogue = load_catalogue(ROOT)
    teacher = load_latent_diffusion(
        catalogue.model("mini-imagenet"), EMBEDDED / "mini-imagenet.safetensors"
    )
    recipe = catalogue.recipe("mini")
    spec = MethodSpec("hqdm", "hqdm", "hqdm", {})
    student = build_student(spec, teacher, Bits(4, 4), recipe, 0)
    assert student.step is not None
    random = torch.Generator().manual_seed(4)
    labels = torch.tensor([1, 7])
    context = teacher.context(labels)
    ddim = DDIM.from_schedule(teacher.schedule, 20, 0.0)
    start = torch.randn(2, *teacher.latent_shape, generator=random)
    with torch.no_grad():
        x, calls = start, []
        for index in reversed(range(20)):
            t = torch.full((2,), int(ddim.timesteps[index]))
            calls.append((x, t, context))
            x = ddim.step(x, teacher.unet(*calls[-1]), index)
        calibrate_on_calls(student, calls[::-1])
        integer = convert(student.freeze())
        differences = [relative(integer(*call), student(*call)) for call in calls]
        # Most predictions agree to rounding. In the others a rounding error of float32 moved a
        # code, as it does between two layouts of the fake-quantized student itself.
        assert sorted(differences)[len(calls) // 2] < 1e-3
        assert max(differences) < 0.15
        ends = []
        for unet in (student, integer, teacher.unet):
            x = start
            for index in reversed(range(20)):
                t = torch.full((2,), int(ddim.timesteps[index]))
                x = ddim.step(x, unet(x, t, context), index)
            ends.append(x)
    difference, error = relative(ends[1], ends[0]), relative(ends[0], ends[2])
    assert difference < 0.5 * error


def test_fractional_zero_points_are_refused(make: Make) -> None:
    student = make("efficientdm", "w4a4", {})
    convert(student)  # as calibrated they are integers
    layer = next(iter(student.low_bit_layers().values()))
    with torch.no_grad():
        layer.activation.zero[1] += 0.25
    with pytest.raises(BenchError, match="train with option zero_points 'integer'"):
        convert(student)


def test_integer_zero_points_stay_trainable(make: Make, calls: Any) -> None:
    student = make("efficientdm", "w4a4", {"zero_points": "integer"})
    layer = next(iter(student.low_bit_layers().values()))
    with torch.no_grad():
        layer.activation.zero[1] += 0.25
    student(*calls[1]).square().sum().backward()
    grads = [each.activation.zero.grad for each in student.low_bit_layers().values()]
    assert any(bool(grad[1]) for grad in grads)  # of what is clipped
    assert relative(convert(student)(*calls[1]), student(*calls[1]).detach()) < 0.02


def test_what_cannot_be_converted_is_refused(make: Make, shared_toy: Any, recipe: Recipe) -> None:
    spec = MethodSpec("fp", "fp", "fp", {})
    with pytest.raises(BenchError, match="no quantized layers"):
        convert(build_student(spec, shared_toy, Bits(32, 32), recipe, 0))
    spec = MethodSpec("hqdm", "hqdm", "hqdm", {})
    with pytest.raises(BenchError, match="calibrate it first"):
        convert(build_student(spec, shared_toy, Bits(4, 4), recipe, 0))
    student = make("hqdm", "w4a4", {}, disturb=False)
    with pytest.raises(BenchError, match="needs float32 on cpu"):
        convert(student.double())


def test_a_layer_above_eight_bits_is_kept_and_said_so(make: Make, calls: Any) -> None:
    integer = convert(make("hqdm", "w4a16", {}))
    assert len(integer.report.kept) == len(integer.low_bit_layers()) > 0
    assert "does not fit bytes" in integer.report.summary()
    integer(*calls[0])
    with pytest.raises(BenchError, match="integer throughout"):
        save(integer, "never.safetensors")


@pytest.mark.parametrize(
    ("method", "drop", "reason"),
    [
        ("smoothquant", False, "its input channels are scaled in floating point"),
        ("dmq", False, "its input channels are scaled in floating point"),
        ("dmq", True, "the step size of its input differs between channels"),
    ],
)
def test_layers_with_scales_or_shifts_are_kept_and_said_so(
    shared_toy: Any, calls: Any, method: str, drop: bool, reason: str
) -> None:
    student = quantize(shared_toy.unet, method, "w4a8", timesteps=TIMES, policy="full")
    calibrate_on_calls(student, calls)
    for layer in student.low_bit_layers().values():
        layer.scaling = None if drop else layer.scaling  # of 1 in an untrained DMQ student
    integer = convert(student, backend="reference")
    kept = {entry.name for entry in integer.report.kept}
    skips = {name for name in student.low_bit_layers() if "skip_connection" in name}
    assert kept == (skips if drop else student.low_bit_layers().keys())
    assert reason in integer.report.summary()
    with torch.no_grad():
        assert relative(integer(*calls[0]), student(*calls[0])) < 1e-5


def test_an_integer_student_stays_where_it_is(make: Make, calls: Any) -> None:
    integer = convert(make("hqdm", "w4a4", {}))
    with pytest.raises(BenchError, match="cannot move"):
        integer.double()
    x, t, context = calls[0]
    with pytest.raises(BenchError, match="NaN or infinite"):
        integer(x * float("nan"), t, context)


def test_a_noise_correction_goes_along(make: Make, tmp_path: Path) -> None:
    student = make("ptqd", "w4a4", {})
    correction = student.noise_correction
    assert correction is not None
    random = torch.Generator().manual_seed(5)
    for table in correction.buffers():
        table.copy_(torch.rand(table.shape, generator=random))
    integer = convert(student)
    save(integer, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", UNet(**_params(student)))
    x = torch.randn(2, 3, 4, 4, generator=random)
    for made in (integer, again):
        assert made.noise_correction is not correction
        assert made.noise_correction is not None
        assert made.noise_correction.direction == correction.direction
        for t in TIMES:
            found = made.noise_correction.correct(x, t)
            assert torch.equal(found, correction.correct(x, t))
