"""Distillation: the student learns the teacher's guided prediction along cached trajectories."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hqdm_bench.catalogue import Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest
from hqdm_bench.common.progress import Progress
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.distill.history import History
from hqdm_bench.distill.optimiser import Optimiser
from hqdm_bench.distill.trajectories import Trajectories, training_sequence
from hqdm_bench.methods import Student
from hqdm_bench.models import LatentDiffusion

__all__ = ["distill", "guided_loss"]

CHECKPOINT_FORMAT = 2  # raise it when a checkpoint holds something else


def distill(
    student: Student,
    teacher: LatentDiffusion,
    trajectories: Trajectories,
    recipe: Recipe,
    seed: int,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
) -> History:
    """Train a student in place.

    Args:
        student: calibrated, unless a checkpoint brings its ranges; a method without anything to
            train (full precision) returns an empty history.
        teacher: gives the class embedder; its network is not run.
        trajectories: cached teacher trajectories; the held-out ones are not touched.
        recipe: updates and rates.
        seed: training seed, which draws the sequence of trajectories.
        checkpoint: file to continue from if it exists, and to write every ``checkpoint_every``
            trajectories and at the end. The caller deletes it once the student is saved.
        checkpoint_every: trajectories between two checkpoints.

    Raises:
        BenchError: the trajectories do not fit the recipe, the student is not calibrated, the
            checkpoint is another run's, or the loss is not finite.
    """
    trajectories.require(recipe)
    history = History(trajectories.timesteps)
    if not student.trainable:
        return history
    student.unfreeze()
    optimiser = Optimiser(student, recipe)
    sequence = training_sequence(recipe, seed)
    identity = _identity(student, trajectories, recipe, sequence)
    if checkpoint and checkpoint.exists():
        _restore(checkpoint, optimiser, history, identity)
    if not student.calibrated:
        raise BenchError(
            f"the {student.method} student has no activation ranges; calibrate it first"
        )
    model = _without_teacher_gradients(teacher, student)
    with Progress(f"distill {student.method} {student.bits}", total=recipe.updates) as progress:
        for epoch in range(optimiser.done // recipe.steps, len(sequence)):
            for index in reversed(range(recipe.steps)):
                loss = guided_loss(model, trajectories, sequence[epoch], index)
                history.losses.append(optimiser.update(loss))
                progress.update(optimiser.done, loss=history.losses[-1])
            finished = epoch + 1
            if checkpoint and (finished % checkpoint_every == 0 or finished == len(sequence)):
                _save(checkpoint, optimiser, history, identity)
    return history


def guided_loss(model: LatentDiffusion, trajectories: Trajectories, n: int, index: int) -> Tensor:
    """Sum of squared differences of the guided predictions at one step of trajectory ``n``.

    Student and teacher see the same x_t; e = e_u + g (e_c - e_u) is formed for both (the paper's
    equation has the mean over unguided predictions; the released code this sum).

    Args:
        model: the latent diffusion model around the student.
        trajectories: latents and teacher predictions.
        n: trajectory.
        index: step index, 0 is the last denoising step.
    """
    device = next(model.unet.parameters()).device
    labels = None if trajectories.labels is None else trajectories.labels[n].to(device)
    x = trajectories.x_t[n, index].to(device)
    target = trajectories.eps[n, index].to(device)
    predicted = model.predict(x, trajectories.timesteps[index], labels, trajectories.guidance)
    return (predicted - target).square().sum()


def _without_teacher_gradients(teacher: LatentDiffusion, student: Student) -> LatentDiffusion:
    """The model around the student; its class embedder is a frozen copy, so none is computed."""
    model = teacher.with_unet(student)
    model.embedder = copy.deepcopy(teacher.embedder)
    if model.embedder is not None:
        model.embedder.requires_grad_(False)
    return model


def _identity(
    student: Student, trajectories: Trajectories, recipe: Recipe, sequence: Sequence[int]
) -> str:
    return digest(
        {
            "format": CHECKPOINT_FORMAT,
            "method": student.method,
            "options": student.options.resolved(),
            "bits": str(student.bits),
            "seed": student.seed,
            "recipe": recipe.asdict(),
            "trajectories": trajectories.recipe,
            "teacher": digest(trajectories.eps[sequence[0], 0].flatten().tolist()),
            "sequence": list(sequence),
        }
    )


def _save(path: Path, optimiser: Optimiser, history: History, identity: str) -> None:
    tensors = optimiser.state()
    tensors["losses"] = torch.tensor(history.losses, dtype=torch.float64)
    header = {"identity": identity, "rates": optimiser.rates, "done": optimiser.done}
    write_tensors(path, tensors, header)


def _restore(path: Path, optimiser: Optimiser, history: History, identity: str) -> None:
    tensors, header = read_tensors(path)
    if header.get("identity") != identity:
        raise BenchError(f"{path} is the checkpoint of another run; delete it to start again")
    optimiser.restore(tensors, header["rates"], header["done"])
    history.losses = tensors["losses"].tolist()
