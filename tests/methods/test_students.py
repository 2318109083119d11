"""What sets the methods apart, and how their parameters are trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import Student, build_student, load_student, save_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import AffineTable, SymmetricTable


def build(
    teacher: LatentDiffusion, recipe: Recipe, name: str, seed: int = 0, **options: Any
) -> Student:
    return build_student(MethodSpec(name, name, name, options), teacher, Bits(4, 4), recipe, seed)


def test_full_precision_is_the_teacher_itself(teacher: LatentDiffusion, recipe: Recipe) -> None:
    spec = MethodSpec("fp", "FP", "fp", {})
    student = build_student(spec, teacher, Bits(32, 32), recipe, 0)
    assert student.network is teacher.unet
    assert not student.trainable
    x, times = torch.ones(2, 3, 4, 4), torch.tensor([3, 777])  # any t, mixed too
    context = teacher.context(torch.tensor([1, 2]))
    assert torch.equal(student(x, times, context), teacher.unet(x, times, context))


def test_methods_share_weights_and_initial_factors(
    teacher: LatentDiffusion, recipe: Recipe
) -> None:
    one, two = build(teacher, recipe, "efficientdm"), build(teacher, recipe, "hqdm")
    assert one.low_bit_layers().keys() == two.low_bit_layers().keys()
    for name, layer in one.low_bit_layers().items():
        other = two.low_bit_layers()[name]
        for key, value in layer.weight.state_dict().items():
            assert torch.equal(value, other.weight.state_dict()[key]), f"{name} {key}"
        assert type(layer.activation) is AffineTable
        assert type(other.activation) is SymmetricTable
        assert layer.rotation is None


def test_initial_factors_depend_on_seed_and_layer(teacher: LatentDiffusion, recipe: Recipe) -> None:
    one, two = build(teacher, recipe, "hqdm", 0), build(teacher, recipe, "hqdm", 1)
    starts = [
        layer.weight.lora_A.flatten()[:8]
        for student in (one, two)
        for layer in student.low_bit_layers().values()
    ]
    assert len({tuple(start.tolist()) for start in starts}) == len(starts)


def test_released_policy_on_the_toy(teacher: LatentDiffusion, recipe: Recipe) -> None:
    student = build(teacher, recipe, "hqdm")
    assert list(student.static_layers()) == [
        "time_embed.0",
        "time_embed.2",
        "input_blocks.0.0",
        "out.2",
    ]
    assert all(layer.rotation is None for layer in student.static_layers().values())
    assert all(layer.weight.bits == 8 for layer in student.static_layers().values())
    kept = [name for name, _ in student.network.named_modules() if name.endswith("skip_connection")]
    assert kept
    assert not set(kept) & set(student.quantized_layers())


@pytest.mark.parametrize(
    ("scope", "rank2", "rank3", "rank4"),
    [
        ("official", True, False, True),
        ("every_linear", True, True, True),
        ("none", False, False, False),
    ],
)
def test_which_inputs_are_rotated(
    scope: str,
    rank2: bool,
    rank3: bool,
    rank4: bool,
    teacher: LatentDiffusion,
    recipe: Recipe,
) -> None:
    layers = build(teacher, recipe, "hqdm", scope=scope).low_bit_layers()
    linear, conv = layers["middle_block.0.emb_layers.1"], layers["middle_block.0.in_layers.2"]
    tokens = layers["middle_block.1.transformer_blocks.0.ff.net.0.proj"]
    assert linear.rotates(torch.zeros(1, 128)) == rank2
    assert conv.rotates(torch.zeros(1, 32, 4, 4)) == rank4
    assert tokens.rotates(torch.zeros(1, 5, 32)) == rank3
    narrow = layers["middle_block.1.transformer_blocks.0.attn2.to_v"]  # 16 channels, block of 32
    assert not narrow.rotates(torch.zeros(1, 1, 16))


def test_block_order_reaches_the_layers(teacher: LatentDiffusion, recipe: Recipe) -> None:
    layer = build(teacher, recipe, "hqdm", order=3).low_bit_layers()["middle_block.0.in_layers.2"]
    x = torch.zeros(1, 32, 1, 1)
    x[0, 0] = 1.0
    spread = layer.quantizer_input(x).flatten()
    assert torch.allclose(spread[:8], torch.full((8,), 8**-0.5))
    assert not spread[8:].any()


def test_groups_of_the_released_optimiser(teacher: LatentDiffusion, recipe: Recipe) -> None:
    student = build(teacher, recipe, "efficientdm")
    groups = student.parameter_groups(recipe)
    layers = list(student.low_bit_layers().values())
    lora, scales, tables = groups[: len(layers)], groups[len(layers) : -1], groups[-1]
    for group, layer in zip(lora, layers, strict=True):
        rate = layer.weight.scale.double().mean().item() / recipe.lora_lr_divisor
        assert group["lr"] == pytest.approx(rate, rel=1e-12)
        assert [id(p) for p in group["params"]] == [
            id(layer.weight.lora_A),
            id(layer.weight.lora_B),
        ]
    assert [group["lr"] for group in scales] == [1e-6, 1e-6]
    for first, second in zip(scales[0]["params"], scales[1]["params"], strict=True):
        assert first is not second
        assert first.data_ptr() == second.data_ptr()
    assert len(tables["params"]) == 2 * len(layers)
    assert tables["lr"] == 5e-4
    assert {group["weight_decay"] for group in groups} == {0.01}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2),
        ({"weight_scale_updates": "once"}, 1),
        ({"base": "full_precision"}, 1),
    ],
)
def test_number_of_weight_scale_updates(
    options: dict[str, str], expected: int, teacher: LatentDiffusion, recipe: Recipe
) -> None:
    groups = build(teacher, recipe, "hqdm", **options).parameter_groups(recipe)
    assert sum(group["name"] == "weight_scale" for group in groups) == expected


def test_the_float_base_keeps_the_teacher_weights(teacher: LatentDiffusion, recipe: Recipe) -> None:
    layers = build(teacher, recipe, "hqdm", preset="as_paper").low_bit_layers()
    for name, layer in layers.items():
        assert torch.equal(layer.weight.base_weight, teacher.unet.get_submodule(name).weight)


def test_a_student_of_other_options_is_refused(
    teacher: LatentDiffusion, recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "student.safetensors"
    save_student(build(teacher, recipe, "hqdm"), path, {})
    with pytest.raises(BenchError, match=r"'order': 5.*'order': 4.*train it again"):
        load_student(path, teacher.unet, MethodSpec("hq4", "HQ", "hqdm", {"order": 4}))
    with pytest.raises(BenchError, match="method 'hqdm'"):
        load_student(path, teacher.unet, MethodSpec("e", "E", "efficientdm", {}))


def test_a_student_of_another_model_is_refused(
    teacher: LatentDiffusion, recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "student.safetensors"
    save_student(build(teacher, recipe, "hqdm", policy="full"), path, {})
    del teacher.unet.output_blocks[1][1]
    with pytest.raises(BenchError, match="does not fit this UNet; it was made of another model"):
        load_student(path, teacher.unet, MethodSpec("h", "H", "hqdm", {"policy": "full"}))
