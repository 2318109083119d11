"""What every method must do, whoever adds it."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import AdamW, calibrate_on_batch
from hqdm_bench.methods import (
    Student,
    available_methods,
    build_student,
    load_student,
    save_student,
)
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import LoRAWeight

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "hqdm": [{"preset": "as_paper"}, {"rotate": "all", "activation": "affine", "order": 3}],
    "efficientdm": [{"preset": "as_paper", "policy": "full", "weight_init": "mse"}],
}
CASES = [
    MethodSpec(name, name, name, options)
    for name in available_methods()
    for options in ({}, *VARIANTS.get(name, []))
]
QUANTIZED = [case for case in CASES if case.implementation != "fp"]
NO_GRADIENT = ("attn2.to_q", "attn2.to_k")  # one token: softmax is 1 whatever they say
TIMES = (1, 251, 501, 751)


def name_of(case: MethodSpec) -> str:
    return "-".join([case.implementation, *map(str, case.options.values())])


def bits_of(case: MethodSpec) -> Bits:
    return Bits(32, 32) if case.implementation == "fp" else Bits(4, 4)


def make(
    case: MethodSpec,
    teacher: LatentDiffusion,
    recipe: Recipe,
    seed: int = 0,
    bits: Bits | None = None,
) -> Student:
    """A calibrated student, whose ranges differ from step to step."""
    student = build_student(case, teacher, bits or bits_of(case), recipe, seed)
    if student.step is None:
        return student
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(9))
    calibrate_on_batch(student, x, torch.tensor(TIMES), teacher.context(torch.arange(4)))
    with torch.no_grad():
        for layer in student.low_bit_layers().values():
            layer.activation.scale.mul_(1 + 0.05 * torch.arange(recipe.steps))
    return student


def move(student: Student) -> None:
    """Pretend training: the low-rank update must be felt, or half of the gradients are zero."""
    random = torch.Generator().manual_seed(2)
    for layer in student.low_bit_layers().values():
        assert isinstance(layer.weight, LoRAWeight)
        with torch.no_grad():
            shape = layer.weight.lora_B.shape
            layer.weight.lora_B.copy_(0.05 * torch.randn(shape, generator=random))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Latents (2, 3, 4, 4) and labels (2,)."""
    random = torch.Generator().manual_seed(4)
    return torch.randn(2, 3, 4, 4, generator=random), torch.tensor([0, 2])


def predict(
    teacher: LatentDiffusion, student: Student, batch: tuple[Tensor, Tensor], t: int = 251
) -> Tensor:
    x, labels = batch
    x = x.to(next(student.parameters()).dtype)
    return teacher.with_unet(student).predict(x, t, labels, 1.5)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_builds_and_leaves_the_teacher_alone(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe, batch: tuple[Tensor, Tensor]
) -> None:
    before = copy.deepcopy(teacher.unet)
    student = make(case, teacher, recipe)
    move(student)
    assert predict(teacher, student, batch).shape == batch[0].shape
    assert student.options.resolved().keys() >= case.options.keys() - {"preset"}
    assert str(teacher.unet) == str(before)
    for old, new in zip(before.parameters(), teacher.unet.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.requires_grad


@pytest.mark.parametrize("case", QUANTIZED, ids=name_of)
def test_gradient_reaches_every_trained_tensor(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe, batch: tuple[Tensor, Tensor]
) -> None:
    student = make(case, teacher, recipe)
    move(student)
    step = 1
    predict(teacher, student, batch, TIMES[step]).square().sum().backward()
    for name, layer in student.low_bit_layers().items():
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None, f"{name} {key}"
            assert parameter.grad.isfinite().all()
            if key == "activation.zero":
                continue  # its gradient comes from clipped values only, and there may be none
            if not name.endswith(NO_GRADIENT):
                assert parameter.grad.abs().max() > 1e-6, f"{name} {key}"
            if key.startswith("activation"):
                others = [row for row in range(recipe.steps) if row != step]
                assert not parameter.grad[others].any()
    trained = {id(p) for group in student.parameter_groups(recipe) for p in group["params"]}
    assert trained == {id(p) for p in student.parameters() if p.requires_grad}


@pytest.mark.parametrize("case", QUANTIZED, ids=name_of)
def test_a_few_updates_lower_the_loss_on_one_batch(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe, batch: tuple[Tensor, Tensor]
) -> None:
    # Eight bits and a disturbed start: at four bits the flips of codes drown five updates.
    student = make(case, teacher, recipe, bits=Bits(8, 8))
    move(student)
    target = teacher.predict(batch[0], 251, batch[1], 1.5).detach()
    optimiser = AdamW(student.parameter_groups(replace(recipe, lora_lr_divisor=0.5)))
    losses = []
    for _ in range(5):
        loss = (predict(teacher, student, batch) - target).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("case", QUANTIZED, ids=name_of)
def test_no_more_levels_than_the_bits_allow(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe, batch: tuple[Tensor, Tensor]
) -> None:
    student = make(case, teacher, recipe).double()
    move(student)
    seen: dict[str, Tensor] = {}
    for name, layer in student.quantized_layers().items():
        layer.activation.register_forward_hook(
            lambda _, given, out, name=name: seen.update({name: out.detach()})
        )
    teacher = teacher.double()
    predict(teacher, student, batch)
    low_bit = student.low_bit_layers()
    for name, layer in student.quantized_layers().items():
        bits = 4 if name in low_bit else 8
        step = student.step.index if name in low_bit else 0
        rows = layer.weight().detach().flatten(1)
        assert max(len(row.unique()) for row in rows) <= 2**bits
        grid = layer.quantizer_input(seen[name]) / layer.activation.scale[step]
        assert torch.allclose(
            grid - grid.flatten()[0], (grid - grid.flatten()[0]).round(), atol=1e-6
        )
        assert len((grid - grid.flatten()[0]).round().unique()) <= 2**bits


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_round_trip_through_a_file_is_exact(
    case: MethodSpec,
    teacher: LatentDiffusion,
    recipe: Recipe,
    batch: tuple[Tensor, Tensor],
    tmp_path: Path,
) -> None:
    student = make(case, teacher, recipe, seed=7)
    move(student)
    save_student(student, tmp_path / "student.safetensors", {"cell": "x"})
    loaded = load_student(tmp_path / "student.safetensors", case, teacher)
    assert (loaded.seed, loaded.bits, loaded.options) == (7, student.bits, student.options)
    expected, found = student.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    assert torch.equal(predict(teacher, loaded, batch), predict(teacher, student, batch))


@pytest.mark.parametrize("case", QUANTIZED, ids=name_of)
def test_the_step_follows_the_timestep(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe, batch: tuple[Tensor, Tensor]
) -> None:
    student = make(case, teacher, recipe)
    assert student.step is not None
    assert student.step.timesteps == TIMES
    with torch.no_grad():
        first = {t: predict(teacher, student, batch, t) for t in TIMES}
        for layer in student.low_bit_layers().values():
            layer.activation.scale[2] *= 1.5
        again = {t: predict(teacher, student, batch, t) for t in reversed(TIMES)}
    changed = [t for t in TIMES if not torch.equal(first[t], again[t])]
    assert changed == [501]
    with pytest.raises(BenchError, match="timestep 2 is not"):
        predict(teacher, student, batch, 2)


@pytest.mark.parametrize("case", QUANTIZED, ids=name_of)
def test_a_batch_of_mixed_timesteps_is_refused(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe
) -> None:
    student = make(case, teacher, recipe)
    times = torch.full((16,), 251)
    times[5] = 501
    with pytest.raises(BenchError, match=r"one timestep a batch.*\[251, 501\]"):
        student(torch.zeros(16, 3, 4, 4), times, torch.zeros(16, 1, 16))


@pytest.mark.parametrize("case", QUANTIZED, ids=name_of)
def test_deep_copies_are_independent(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe, batch: tuple[Tensor, Tensor]
) -> None:
    student = make(case, teacher, recipe)
    expected = predict(teacher, student, batch)
    twin = copy.deepcopy(student)
    assert torch.equal(predict(teacher, twin, batch), expected)
    move(twin)
    for layer in twin.low_bit_layers().values():
        with torch.no_grad():
            layer.activation.scale.mul_(2)
            layer.weight.scale.mul_(1.1)
            base = layer.weight.base_scale
            assert base is None or torch.equal(base, layer.weight.scale)  # still one number
    assert not torch.equal(predict(teacher, twin, batch, 751), expected)
    assert student.step.index == 1  # the copy is at another step
    assert torch.equal(predict(teacher, student, batch), expected)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_frozen_weights_give_the_same_output(
    case: MethodSpec, teacher: LatentDiffusion, recipe: Recipe, batch: tuple[Tensor, Tensor]
) -> None:
    student, teacher = make(case, teacher, recipe).double(), teacher.double()
    move(student)
    with torch.no_grad():
        expected = predict(teacher, student, batch)
        student.freeze()
        torch.testing.assert_close(predict(teacher, student, batch), expected, atol=1e-9, rtol=0)
        for layer in student.low_bit_layers().values():
            layer.weight.scale.mul_(1.2)
        frozen = predict(teacher, student, batch)
        student.unfreeze()
        torch.testing.assert_close(frozen, predict(teacher, student, batch), atol=1e-9, rtol=0)
