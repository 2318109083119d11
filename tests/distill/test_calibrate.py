import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import Trajectories, calibrate, noise_error
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import mse_grid, symmetric_mse_scale


def build(teacher: LatentDiffusion, recipe: Recipe, name: str, **options: Any) -> Student:
    bits = Bits(32, 32) if name == "fp" else Bits(4, 4)
    return build_student(MethodSpec(name, name, name, options), teacher, bits, recipe, 0)


def tables(student: Student) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().clone()
        for name, layer in student.quantized_layers().items()
        for key, value in layer.activation.state_dict().items()
    }


@pytest.mark.parametrize("name", ["efficientdm", "hqdm"])
@pytest.mark.parametrize("variant", ["single_batch", "per_step"])
def test_fills_every_table_and_nothing_else(
    variant: str,
    name: str,
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
) -> None:
    student = build(teacher, recipe, name)
    before = copy.deepcopy(student.state_dict())
    assert not student.calibrated
    calibrate(student, teacher, trajectories, replace(recipe, calibration=variant), 0)
    assert student.calibrated
    for key, value in student.state_dict().items():
        if ".activation." not in key:
            assert torch.equal(value, before[key]), key
        if key.endswith("activation.scale"):
            assert (value > 0).all(), key
    again = build(teacher, recipe, name)
    calibrate(again, teacher, trajectories, replace(recipe, calibration=variant), 0)
    for key, value in tables(student).items():
        assert torch.equal(value, tables(again)[key]), key


def test_full_precision_is_left_alone(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    calibrate(build(teacher, recipe, "fp"), teacher, trajectories, recipe, 0)


def test_single_batch_starts_all_rows_and_both_methods_from_one_scale(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    recipe = replace(recipe, calibration="single_batch")
    found = {}
    for name in ("efficientdm", "hqdm"):
        student = build(teacher, recipe, name)
        calibrate(student, teacher, trajectories, recipe, 0)
        found[name] = tables(student)
    for key, value in found["hqdm"].items():
        assert torch.equal(value, found["efficientdm"][key]), key
        assert len(value.unique()) == 1, key


def inputs(
    student: Student, teacher: LatentDiffusion, trajectories: Trajectories, step: int
) -> dict[str, Tensor]:
    """Quantizer inputs with quantized weights and exact activations, for all training images."""
    plain = copy.deepcopy(student)
    seen: dict[str, Tensor] = {}
    for name, layer in plain.quantized_layers().items():
        layer.activation.forward = lambda x, step, rotation=None: x  # type: ignore[method-assign]
        layer.register_forward_pre_hook(
            lambda layer, given, name=name: seen.update({name: layer.quantizer_input(given[0])})
        )
    x = trajectories.training.x_t[:, step].flatten(0, 1)
    labels = trajectories.training.labels.flatten()
    with torch.no_grad():
        teacher.with_unet(plain).predict(x, trajectories.timesteps[step], labels, 1.5)
    return seen


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("efficientdm", {}),
        ("hqdm", {}),
        ("hqdm", {"scope": "every_linear", "activation": "asymmetric"}),
    ],
)
def test_per_step_searches_the_inputs_the_quantizer_will_see(
    name: str,
    options: dict[str, Any],
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
) -> None:
    recipe = replace(recipe, calibration_images=8)  # all four training images, both halves
    student = build(teacher, recipe, name, **options)
    calibrate(student, teacher, trajectories, recipe, 0)
    for step in (0, 3):
        for layer_name, x in inputs(student, teacher, trajectories, step).items():
            layer = student.quantized_layers()[layer_name]
            if layer_name in student.static_layers() or x.numel() > 8192:
                continue
            if layer.activation.zero is None:
                scale = symmetric_mse_scale(x, 4)
            else:
                grid = mse_grid(x, 4, per_channel=False)
                scale = grid.scale
                assert layer.activation.zero[step] == grid.zero
            assert layer.activation.scale[step].item() == pytest.approx(scale.item(), rel=1e-5)


def test_static_layers_take_one_range_over_all_steps(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    recipe = replace(recipe, calibration_images=8)
    student = build(teacher, recipe, "hqdm")
    calibrate(student, teacher, trajectories, recipe, 0)
    steps = [inputs(student, teacher, trajectories, step) for step in range(recipe.steps)]
    for name, layer in student.static_layers().items():
        grid = mse_grid(torch.cat([seen[name].flatten() for seen in steps]), 8, per_channel=False)
        assert layer.activation.scale.item() == pytest.approx(grid.scale.item(), rel=1e-5)
        assert layer.activation.zero.item() == grid.zero.item()


def test_ranges_per_step_predict_better_than_one_range(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    errors = {}
    for variant in ("single_batch", "per_step"):
        variant_recipe = replace(recipe, calibration=variant, calibration_images=8)
        student = build(teacher, recipe, "hqdm")
        calibrate(student, teacher, trajectories, variant_recipe, 0)
        errors[variant] = noise_error(student, teacher, trajectories)
    assert 0 < errors["per_step"] < errors["single_batch"] < 1


@pytest.mark.parametrize(("variant", "available"), [("single_batch", 32), ("per_step", 4)])
def test_more_rows_than_there_are_is_refused(
    variant: str,
    available: int,
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
) -> None:
    recipe = replace(recipe, calibration=variant, calibration_images=33)
    with pytest.raises(BenchError, match=rf"hold {available}; lower calibration_images"):
        calibrate(build(teacher, recipe, "hqdm"), teacher, trajectories, recipe, 0)


def test_unknown_variant_is_refused(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    recipe = replace(recipe, calibration="percentile")
    with pytest.raises(BenchError, match="'percentile'; allowed: single_batch, per_step"):
        calibrate(build(teacher, recipe, "hqdm"), teacher, trajectories, recipe, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda x: mse_grid(x, 4, per_channel=False).scale),
        ({"activation_grid": "symmetric"}, lambda x: symmetric_mse_scale(x, 4, full_range=True)),
        ({"activation_range": "minmax"}, lambda x: (x.max().clamp(0) - x.min().clamp(max=0)) / 15),
    ],
)
def test_single_batch_takes_the_grid_of_a_learned_step_as_its_options_say(
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    options: dict[str, str],
    expected: Callable[[Tensor], Tensor],
) -> None:
    recipe = replace(recipe, calibration="single_batch")
    student = build(teacher, recipe, "lsq", **options)
    name = next(iter(student.low_bit_layers()))
    layer = student.quantized_layers()[name]
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    calibrate(student, teacher, trajectories, recipe, 0)
    hook.remove()
    scale = layer.activation.scale.detach()
    torch.testing.assert_close(scale, expected(seen[0]).expand_as(scale), rtol=1e-5, atol=0)


def test_one_batch_cannot_show_what_is_measured_at_every_step(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    recipe = replace(recipe, calibration="single_batch")
    with pytest.raises(BenchError, match="measures its input at every step.*per_step"):
        calibrate(build(teacher, recipe, "hqdm_plus"), teacher, trajectories, recipe, 0)
