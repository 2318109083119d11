"""Distillation: the student learns the teacher's predictions along cached trajectories."""

import copy
from collections.abc import Callable, Sequence
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

__all__ = ["distill", "eps_loss", "guided_loss", "trained_losses"]

CHECKPOINT_FORMAT = 3  # raise it when a checkpoint holds something else

Loss = Callable[[LatentDiffusion, Trajectories, int, int], Tensor]


def distill(
    student: Student,
    teacher: LatentDiffusion,
    trajectories: Trajectories,
    recipe: Recipe,
    seed: int,
    checkpoint: Path | None = None,
    checkpoint_every: int = 10,
    note: Callable[[], None] | None = None,
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
        note: called after each checkpoint.

    Raises:
        BenchError: the trajectories do not fit the recipe or the loss, the student is not
            calibrated, the checkpoint is another run's, or the loss is not finite.
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
    model, loss_of = _without_teacher_gradients(teacher, student), _loss_of(student)
    with Progress(f"distill {student.method} {student.bits}", total=recipe.updates) as progress:
        for epoch in range(optimiser.done // recipe.steps, len(sequence)):
            for index in reversed(range(recipe.steps)):
                loss = loss_of(model, trajectories, sequence[epoch], index)
                history.losses.append(optimiser.update(loss))
                progress.update(optimiser.done, loss=history.losses[-1])
            finished = epoch + 1
            if checkpoint and (finished % checkpoint_every == 0 or finished == len(sequence)):
                _save(checkpoint, optimiser, history, identity)
                if note is not None:
                    note()
    return history


def trained_losses(checkpoint: Path) -> list[float]:
    """Losses of the updates that a checkpoint of `distill` has behind it."""
    losses: list[float] = read_tensors(checkpoint)[0]["losses"].tolist()
    return losses


def _loss_of(student: Student) -> Loss:
    losses: dict[str, Loss] = {"guided_sum": guided_loss, "eps_mean": eps_loss}
    return losses[student.options.resolved().get("loss", "guided_sum")]


def guided_loss(model: LatentDiffusion, trajectories: Trajectories, n: int, index: int) -> Tensor:
    """Sum of squared differences of the guided predictions at one step of trajectory ``n``.

    Student and teacher see the same x_t; e = e_u + g (e_c - e_u) is formed for both. This is the
    released code; the papers' equation is `eps_loss`.

    Args:
        model: the latent diffusion model around the student.
        trajectories: latents and teacher predictions.
        n: trajectory.
        index: step index, 0 is the last denoising step.
    """
    x, labels = _inputs(model, trajectories, n, index)
    target = trajectories.eps[n, index].to(x.device)
    predicted = model.predict(x, trajectories.timesteps[index], labels, trajectories.guidance)
    return (predicted - target).square().sum()


def eps_loss(model: LatentDiffusion, trajectories: Trajectories, n: int, index: int) -> Tensor:
    """Mean squared difference of the unguided predictions at one step of trajectory ``n``.

    HQ-DM's Eq. 12, and EfficientDM's objective in its text. Where the trajectories are guided the
    mean goes over both kinds of rows, unconditional and conditional; otherwise there is one kind.

    Args:
        model: the latent diffusion model around the student.
        trajectories: latents and teacher predictions.
        n: trajectory.
        index: step index, 0 is the last denoising step.

    Raises:
        BenchError: guided trajectories that were stored without the predictions behind them.
    """
    x, labels = _inputs(model, trajectories, n, index)
    t = trajectories.timesteps[index]
    if labels is None or not model.guides(labels, trajectories.guidance):
        predicted = model.predict(x, t, labels, trajectories.guidance)
        target = trajectories.eps[n, index]
    else:
        if trajectories.branches is None:
            raise BenchError(
                "loss eps_mean needs the teacher's unguided predictions, which these trajectories "
                "of an earlier version do not hold; draw the trajectories again"
            )
        predicted = model.predict_branches(x, t, labels)
        target = trajectories.branches[n, index].flatten(0, 1)
    return (predicted - target.to(x.device)).square().mean()


def _inputs(
    model: LatentDiffusion, trajectories: Trajectories, n: int, index: int
) -> tuple[Tensor, Tensor | None]:
    """Latents and labels on the model's device."""
    device = next(model.unet.parameters()).device
    labels = None if trajectories.labels is None else trajectories.labels[n].to(device)
    return trajectories.x_t[n, index].to(device), labels


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
    write_tensors(path, tensors, {"identity": identity, **optimiser.settings})


def _restore(path: Path, optimiser: Optimiser, history: History, identity: str) -> None:
    tensors, header = read_tensors(path)
    if header.get("identity") != identity:
        raise BenchError(f"{path} is the checkpoint of another run; delete it to start again")
    optimiser.restore(tensors, header)
    history.losses = tensors["losses"].tolist()
