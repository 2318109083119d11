"""What every method must do, whoever adds it: steps, seeds, files, copies, kept weights."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hqdm_bench.catalogue import MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.methods import Student, build_student, load_student, save_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import Blend, LoRAWeight

TIMES = (1, 501)
SEED = 7  # of the calibrated students
Make = Callable[..., Student]
Calls = list[tuple[Tensor, Tensor, Tensor]]


def outputs(student: Student, calls: Calls) -> dict[int, Tensor]:
    """Outputs by timestep."""
    with torch.no_grad():
        return {int(call[1][0]): student(*call) for call in calls}


def changed(before: dict[int, Tensor], after: dict[int, Tensor]) -> list[int]:
    return [t for t in before if not torch.equal(before[t], after[t])]


def test_a_row_of_the_input_scales_serves_its_timestep(
    quantized: MethodSpec, calibrated: Make, calls: Calls
) -> None:
    student = calibrated(quantized)
    assert student.step.timesteps == TIMES
    before = outputs(student, calls)
    with torch.no_grad():
        scales = [layer.activation.scale for layer in student.low_bit_layers().values()]
        for scale in scales:
            scale[-1:] *= 1.5  # an exact input has none
        for call in (calls[1], calls[0], calls[0]):
            student(*call)  # calls that a counter of steps would stumble over
    shared = any(len(scale) == 1 for scale in scales)
    assert changed(before, outputs(student, calls[::-1])) == (list(TIMES) if shared else [501])


def test_a_row_of_the_weight_scales_serves_its_timestep(
    quantized: MethodSpec, calibrated: Make, calls: Calls
) -> None:
    student = calibrated(quantized)
    before = outputs(student, calls)
    by_step = getattr(student.options, "weight_scales", "shared") == "per_step"
    with torch.no_grad():
        for layer in student.low_bit_layers().values():
            assert layer.weight.steps == (len(TIMES) if by_step else None)
            (layer.weight.scale[1] if by_step else layer.weight.scale).mul_(1.5)
    assert changed(before, outputs(student, calls)) == ([501] if by_step else list(TIMES))


def test_timesteps_without_a_row_follow_the_option(
    quantized: MethodSpec, calibrated: Make, calls: Calls
) -> None:
    student = calibrated(quantized)
    x, _, context = calls[0]
    t = torch.full((2,), 301)
    rule = getattr(student.options, "steps", "pick")
    if rule == "by_timestep":
        with pytest.raises(BenchError, match=r"timestep 301.* is not in"):
            student(x, t, context)
        return
    assert student(x, t, context).isfinite().all()
    assert student.step.row == (Blend(0, 0.6) if rule == "interpolate" else 1)


def test_a_batch_of_mixed_timesteps_is_refused(plain: MethodSpec, calibrated: Make) -> None:
    times = torch.full((16,), 501)
    times[5] = 1
    with pytest.raises(BenchError, match=r"one timestep a batch.*\[1, 501\]"):
        calibrated(plain)(torch.zeros(16, 3, 4, 4), times, torch.zeros(16, 1, 16))


def test_the_seed_decides_everything_random(
    quantized: MethodSpec, shared_toy: LatentDiffusion, recipe: Recipe, calibrated: Make
) -> None:
    bits = calibrated(quantized).bits
    # Not calibrated: a method may quantize its weights again for what calibration finds.
    one, again, other = (
        build_student(quantized, shared_toy, bits, recipe, seed) for seed in (SEED, SEED, SEED + 1)
    )
    for name, layer in one.low_bit_layers().items():
        twin, stranger = again.low_bit_layers()[name], other.low_bit_layers()[name]
        for key, value in layer.weight.state_dict().items():
            assert torch.equal(twin.weight.state_dict()[key], value), f"{name} {key}"
        if isinstance(layer.weight, LoRAWeight):
            assert not torch.equal(stranger.weight.lora_A, layer.weight.lora_A), name
        if layer.signs is not None:
            assert torch.equal(twin.signs, layer.signs)
            assert not torch.equal(stranger.signs, layer.signs) or len(layer.signs) < 32


def test_calibration_repeats_itself(plain: MethodSpec, calibrated: Make, calls: Calls) -> None:
    """What was measured before leaves no trace."""
    one, twin = calibrated(plain), calibrated(plain)
    calibrate_on_calls(twin, [(x * 5, *rest) for x, *rest in calls])
    assert changed(outputs(one, calls), outputs(twin, calls)) == list(TIMES)
    calibrate_on_calls(twin, calls)
    for key, value in one.state_dict().items():
        assert torch.equal(twin.state_dict()[key], value), key


def test_a_file_holds_a_student_exactly(
    case: MethodSpec,
    calibrated: Make,
    move: Callable,
    shared_toy: LatentDiffusion,
    calls: Calls,
    tmp_path: Path,
) -> None:
    student = move(calibrated(case))
    layers = student.quantized_layers().values()
    choosing = [layer for layer in layers if layer.rotates_input is not None]
    for layer, on in zip(choosing, [False, True] * len(choosing), strict=False):
        layer.switch_rotation(on)  # both kinds, whatever was measured
    path = tmp_path / "student.safetensors"
    save_student(student, path, {"cell": "x"})
    for loaded in (load_student(path, shared_toy.unet, case), load_student(path, shared_toy.unet)):
        assert (loaded.request, loaded.options) == (student.request, student.options)
        assert loaded.method == case.implementation
        found = loaded.state_dict()
        assert found.keys() == student.state_dict().keys()
        for key, value in student.state_dict().items():
            assert torch.equal(found[key], value), key
        assert changed(outputs(student, calls), outputs(loaded, calls)) == []
        for name, layer in student.quantized_layers().items():
            twin, x = loaded.quantized_layers()[name], torch.zeros(1, layer.in_channels)
            if layer.linear:
                assert twin.rotates(x) == layer.rotates(x)


def test_deep_copies_are_independent(
    quantized: MethodSpec, calibrated: Make, move: Callable, calls: Calls
) -> None:
    student = calibrated(quantized)
    before = outputs(student, calls[:1])
    twin = copy.deepcopy(student)
    assert changed(before, outputs(twin, calls[:1])) == []
    move(twin)
    with torch.no_grad():
        for layer in twin.low_bit_layers().values():
            layer.activation.scale.mul_(2)
            layer.weight.scale.mul_(1.1)
            base = getattr(layer.weight, "base_scale", None)
            assert base is None or torch.equal(base, layer.weight.scale)  # still one number
    assert changed(outputs(twin, calls), outputs(student, calls)) == list(TIMES)
    student(*calls[0])
    twin(*calls[1])
    assert student.step.index == 0  # the copy is at another step
    assert changed(before, outputs(student, calls[:1])) == []


def test_kept_weights_give_the_same_output(
    case: MethodSpec, calibrated: Make, move: Callable, shared_toy: LatentDiffusion, calls: Calls
) -> None:
    """In double precision; what freezing may change is the order of sums."""
    student = calibrated(case)
    if student.network is shared_toy.unet:
        student.network = copy.deepcopy(student.network)
    move(student.double())
    calls = [(x.double(), t, context.double()) for x, t, context in calls]
    exact = {"atol": 1e-9, "rtol": 0}
    expected = outputs(student, calls)
    student.freeze()
    for _ in range(2):  # the first call makes the weights, the second takes them
        for t, out in outputs(student, calls).items():
            torch.testing.assert_close(out, expected[t], **exact)
    with torch.no_grad():
        for layer in student.low_bit_layers().values():
            layer.weight.scale.mul_(1.2)
    kept = outputs(student, calls[1:])
    for t, out in outputs(student.unfreeze(), calls[1:]).items():
        torch.testing.assert_close(kept[t], out, **exact)
        assert student.step is None or not torch.allclose(out, expected[t])
