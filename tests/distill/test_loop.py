import copy
import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import (
    History,
    Trajectories,
    calibrate,
    distill,
    guided_loss,
    loop,
    noise_error,
    noise_errors,
    training_sequence,
)
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import LatentDiffusion


def trained_from(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories, name: str = "hqdm"
) -> Student:
    student = build_student(MethodSpec(name, name, name, {}), teacher, Bits(4, 4), recipe, 0)
    calibrate(student, teacher, trajectories, recipe, 0)
    return student


def test_history_lists_every_update_from_the_noisiest_step_down(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories, tmp_path: Path
) -> None:
    student = trained_from(teacher, recipe, trajectories)
    with torch.no_grad():
        first = training_sequence(recipe, 0)[0]
        expected = guided_loss(teacher.with_unet(student), trajectories, first, 3).item()
    history = distill(student, teacher, trajectories, recipe, 0)
    history.write(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["update", "epoch", "step", "timestep", "loss"]
    assert [int(row["update"]) for row in rows] == list(range(1, 9))
    assert [int(row["epoch"]) for row in rows] == [1] * 4 + [2] * 4
    assert [int(row["step"]) for row in rows] == [3, 2, 1, 0] * 2
    assert [int(row["timestep"]) for row in rows] == [751, 501, 251, 1] * 2
    assert [float(row["loss"]) for row in rows] == history.losses
    assert history.losses[0] == expected
    assert history.epoch_means()[1] == pytest.approx(sum(history.losses[4:]) / 4)


def test_unfinished_epochs_have_no_mean() -> None:
    assert History((1, 501), [4.0, 2.0, 9.0]).epoch_means() == [3.0]


def test_training_moves_only_what_is_trained(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = trained_from(teacher, recipe, trajectories)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    embedding = teacher.embedder.embedding.weight
    distill(student, teacher, trajectories, recipe, 0)
    assert embedding.grad is None
    assert embedding.requires_grad
    trained = ("lora_A", "lora_B", "weight.scale", "activation.scale")
    low_bit = tuple(f"network.{name}." for name in student.low_bit_layers())
    for key, value in student.state_dict().items():
        if "attn2.to_q" in key or "attn2.to_k" in key:
            continue  # one token: softmax is 1 whatever they say
        moves = key.endswith(trained) and key.startswith(low_bit)
        assert torch.equal(value, before[key]) != moves, key


def test_training_predicts_held_out_noise_better(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    # Eight bits and a disturbed start leave much to gain; at four bits so short a training of so
    # small a network is a matter of luck.
    recipe = replace(recipe, trajectories=12, lora_lr_divisor=0.5)
    spec = MethodSpec("hqdm", "hqdm", "hqdm", {})
    student = build_student(spec, teacher, Bits(8, 8), recipe, 0)
    calibrate(student, teacher, trajectories, recipe, 0)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in student.low_bit_layers().values():
            update = layer.weight.lora_B
            update += 0.3 * torch.randn(update.shape, generator=random)
    start = noise_error(student, teacher, trajectories)
    distill(student, teacher, trajectories, recipe, 0)
    assert noise_error(student, teacher, trajectories) < 0.93 * start


def test_full_precision_has_nothing_to_train(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    spec = MethodSpec("fp", "FP", "fp", {})
    student = build_student(spec, teacher, Bits(32, 32), recipe, 0)
    assert distill(student, teacher, trajectories, recipe, 0).losses == []
    assert noise_error(student, teacher, trajectories) < 1e-12


def test_noise_error_of_a_silent_student_is_one(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = build_student(MethodSpec("fp", "FP", "fp", {}), teacher, Bits(32, 32), recipe, 0)
    student.network.forward = lambda x, t, c: torch.zeros_like(x)  # type: ignore[method-assign]
    assert noise_error(student, teacher, trajectories) == 1.0
    with pytest.raises(BenchError, match="no trajectory is held out"):
        noise_error(student, teacher, trajectories.training)


def test_noise_errors_by_image_are_those_of_each_image_alone(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = trained_from(teacher, recipe, trajectories)
    found = noise_errors(student, teacher, trajectories)
    held_out = trajectories.held_out
    count, _, images = held_out.eps.shape[:3]
    assert len(found.errors) == len(found.energies) == count * images
    energies = held_out.eps.double().square().sum((1, 3, 4, 5)).flatten()
    assert found.energies == pytest.approx(energies.tolist())
    assert sum(found.errors) / sum(found.energies) == found.relative
    assert noise_error(student, teacher, trajectories) == found.relative
    lone = replace(trajectories, pool=trajectories.pool + count - 1)  # the last one held out
    alone = noise_errors(student, teacher, lone)
    assert alone.errors == pytest.approx(found.errors[-images:], rel=1e-4)


class KilledError(Exception):
    pass


@pytest.mark.parametrize(("name", "killed_at"), [("hqdm", 5), ("efficientdm", 9)])
def test_a_killed_run_continues_bit_for_bit(
    name: str,
    killed_at: int,
    teacher: LatentDiffusion,
    recipe: Recipe,
    trajectories: Trajectories,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(recipe, trajectories=3)
    start = trained_from(teacher, recipe, trajectories, name)
    whole = copy.deepcopy(start)
    expected = distill(whole, teacher, trajectories, recipe, 0)
    calls = 0

    def dying(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > killed_at:
            raise KilledError
        return guided_loss(*arguments)  # type: ignore[arg-type]

    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "guided_loss", dying)
        with pytest.raises(KilledError):
            student = copy.deepcopy(start)
            distill(student, teacher, trajectories, recipe, 0, path, checkpoint_every=1)
    resumed = copy.deepcopy(start)
    assert distill(resumed, teacher, trajectories, recipe, 0, path, checkpoint_every=1) == expected
    monkeypatch.setattr(loop, "guided_loss", None)  # a finished run calculates nothing
    finished = copy.deepcopy(start)
    assert distill(finished, teacher, trajectories, recipe, 0, path) == expected
    trained = whole.state_dict()
    for student in (resumed, finished):
        for key, value in student.state_dict().items():
            assert torch.equal(value, trained[key]), key


def test_the_checkpoint_of_another_run_is_refused(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories, tmp_path: Path
) -> None:
    recipe = replace(recipe, trajectories=1)
    path = tmp_path / "checkpoint.safetensors"
    distill(trained_from(teacher, recipe, trajectories), teacher, trajectories, recipe, 0, path)
    other = replace(recipe, activation_lr=1e-3)
    student = trained_from(teacher, other, trajectories)
    with pytest.raises(BenchError, match="checkpoint of another run; delete it"):
        distill(student, teacher, trajectories, other, 0, path)


def test_a_checkpoint_is_not_continued_under_another_teacher(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories, tmp_path: Path
) -> None:
    recipe = replace(recipe, trajectories=1)
    path = tmp_path / "checkpoint.safetensors"
    distill(trained_from(teacher, recipe, trajectories), teacher, trajectories, recipe, 0, path)
    other = replace(trajectories, eps=1.001 * trajectories.eps)
    student = trained_from(teacher, recipe, other)
    with pytest.raises(BenchError, match="checkpoint of another run; delete it"):
        distill(student, teacher, other, recipe, 0, path)


def test_an_uncalibrated_student_is_refused(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    spec = MethodSpec("h", "H", "hqdm", {})
    student = build_student(spec, teacher, Bits(4, 4), recipe, 0)
    with pytest.raises(BenchError, match="calibrate it first"):
        distill(student, teacher, trajectories, recipe, 0)


def test_divergence_says_when_and_what_to_lower(
    teacher: LatentDiffusion, recipe: Recipe, trajectories: Trajectories
) -> None:
    student = trained_from(teacher, recipe, trajectories)
    bad = trajectories.eps.clone()
    bad[training_sequence(recipe, 0)[0], 1] = torch.nan  # third update of the first trajectory
    with pytest.raises(BenchError, match=r"update 3 of 8 is nan; lower activation_lr"):
        distill(student, teacher, replace(trajectories, eps=bad), recipe, 0)
    with torch.no_grad():
        next(iter(student.low_bit_layers().values())).weight.lora_B.fill_(torch.inf)
    with pytest.raises(BenchError, match=r"update 1 of 8 is nan; raise lora_lr_divisor"):
        distill(student, teacher, trajectories, recipe, 0)
