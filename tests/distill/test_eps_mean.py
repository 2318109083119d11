"""The loss of the papers' text, and the unguided teacher predictions behind it."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.distill import (
    Trajectories,
    calibrate,
    distill,
    eps_loss,
    generate,
    guided_loss,
    load_trajectories,
    loop,
    save_trajectories,
    training_sequence,
)
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import LatentDiffusion

EPS_MEAN = {"loss": "eps_mean"}


def student_of(
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    options: dict[str, str],
    name: str = "hqdm",
) -> Student:
    student = build_student(MethodSpec(name, name, name, options), teacher, Bits(4, 4), recipe, 0)
    calibrate(student, teacher, trajectories, recipe, 0)
    return student


def test_branches_are_the_teachers_two_predictions(
    trajectories: Trajectories, shared_toy: LatentDiffusion
) -> None:
    assert trajectories.branches is not None
    assert trajectories.branches.shape == (3, 4, 2, 2, 3, 4, 4)
    assert trajectories.branches.dtype == torch.float32
    n, index = 1, 2
    x, labels = trajectories.x_t[n, index], trajectories.labels[n]
    t = torch.full((2,), trajectories.timesteps[index])
    with torch.no_grad():
        for branch, own in enumerate((torch.full_like(labels, 3), labels)):
            alone = shared_toy.unet(x, t, shared_toy.context(own))
            found = trajectories.branches[n, index, branch]
            torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)
    unconditional, conditional = trajectories.branches.unbind(2)
    formed = unconditional + trajectories.guidance * (conditional - unconditional)
    assert torch.equal(formed, trajectories.eps)
    assert torch.equal(trajectories.held_out.branches, trajectories.branches[2:])


def test_a_file_holds_the_branches_and_gives_eps_back_to_the_last_bit(
    trajectories: Trajectories, tmp_path: Path
) -> None:
    path = tmp_path / "t.safetensors"
    save_trajectories(path, trajectories)
    assert set(read_tensors(path)[0]) == {"x_t", "branches", "labels"}
    loaded = load_trajectories(path)
    assert torch.equal(loaded.eps, trajectories.eps)
    assert torch.equal(loaded.branches, trajectories.branches)
    save_trajectories(tmp_path / "again.safetensors", loaded)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.7])
def test_other_scales(
    guidance: float, shared_toy: LatentDiffusion, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, guidance=guidance, pool=1)
    drawn = generate(shared_toy, recipe)
    assert (drawn.branches is None) == (guidance == 1)
    save_trajectories(tmp_path / "t.safetensors", drawn)
    loaded = load_trajectories(tmp_path / "t.safetensors")
    assert torch.equal(loaded.eps, drawn.eps)
    assert (loaded.branches is None) == (guidance == 1)


def earlier(trajectories: Trajectories, path: Path) -> Trajectories:
    """The set as an earlier version would have stored it."""
    save_trajectories(path, trajectories)
    tensors, header = read_tensors(path)
    del tensors["branches"]
    write_tensors(path, {**tensors, "eps": trajectories.eps}, header)
    return load_trajectories(path)


def test_a_file_of_an_earlier_version_serves_the_other_loss_only(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories, tmp_path: Path
) -> None:
    stored = earlier(trajectories, tmp_path / "t.safetensors")
    assert stored.branches is None
    assert torch.equal(stored.eps, trajectories.eps)
    start = student_of(teacher, recipe, trajectories, {})
    found = distill(copy.deepcopy(start), teacher, stored, recipe, 0)
    assert found == distill(start, teacher, trajectories, recipe, 0)
    student = student_of(teacher, recipe, trajectories, EPS_MEAN)
    with pytest.raises(BenchError, match="eps_mean needs .* draw the trajectories again"):
        distill(student, teacher, stored, recipe, 0)


def test_it_is_the_mean_over_both_branches(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = student_of(teacher, recipe, trajectories, EPS_MEAN)
    n, index = 1, 3
    x, labels = trajectories.x_t[n, index], trajectories.labels[n]
    t = torch.full((2,), trajectories.timesteps[index])
    errors = []
    with torch.no_grad():
        for own in (torch.full_like(labels, 3), labels):
            context = teacher.context(own)
            errors.append((student(x, t, context) - teacher.unet(x, t, context)).square())
        loss = eps_loss(teacher.with_unet(student), trajectories, n, index)
    assert errors[0].mean() != pytest.approx(errors[1].mean().item(), rel=1e-3)
    assert loss.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)


def test_one_doubled_batch_of_the_student_and_none_of_the_teacher(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = student_of(teacher, recipe, trajectories, EPS_MEAN)
    batches: list[int] = []
    student.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    teacher.unet.forward = None  # type: ignore[assignment]
    history = distill(student, teacher, trajectories, replace(recipe, trajectories=1), 0)
    assert batches == [4] * 4
    assert len(history.losses) == 4


def test_without_guidance_it_is_the_mean_of_the_only_prediction(
    teacher: LatentDiffusion, recipe: Recipe
) -> None:
    recipe = replace(recipe, guidance=1.0)
    drawn = generate(teacher, recipe)
    student = student_of(teacher, recipe, drawn, EPS_MEAN)
    model = teacher.with_unet(student)
    with torch.no_grad():
        total = guided_loss(model, drawn, 0, 2)
        mean = eps_loss(model, drawn, 0, 2)
    assert mean.item() == pytest.approx(total.item() / drawn.eps[0, 2].numel(), rel=1e-6)


@pytest.mark.parametrize("name", ["hqdm", "efficientdm"])
def test_the_option_chooses_the_loss(
    name: str, teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    first = training_sequence(recipe, 0)[0]
    for options, loss in ((EPS_MEAN, eps_loss), ({}, guided_loss)):
        student = student_of(teacher, recipe, trajectories, options, name)
        with torch.no_grad():
            expected = loss(teacher.with_unet(student), trajectories, first, 3).item()
        assert distill(student, teacher, trajectories, recipe, 0).losses[0] == expected


def test_a_student_without_the_option_has_the_guided_loss(
    teacher: LatentDiffusion, recipe: Recipe
) -> None:
    student = build_student(MethodSpec("fp", "FP", "fp", {}), teacher, Bits(32, 32), recipe, 0)
    assert loop._loss_of(student) is guided_loss
