"""From a teacher to a trained student, in one call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill.calibrate import calibrate
from hqdm_bench.distill.history import History
from hqdm_bench.distill.loop import distill
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.distill.validate import noise_error
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import coverage

__all__ = ["Trained", "train_student"]


@dataclass(frozen=True)
class Trained:
    """A student and what is known about its training.

    Attributes:
        noise_error: relative squared error on held-out trajectories.
        coverage: shares of multiply-accumulates and weights by bit-width, size, bit operations.
    """

    student: Student
    history: History
    noise_error: float
    coverage: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """What ``training.json`` says about the training."""
        means = self.history.epoch_means()
        return {
            "options": self.student.options.resolved(),
            "noise_error": self.noise_error,
            "loss": {"first_epoch": means[0], "last_epoch": means[-1]},
            "coverage": self.coverage,
        }


def train_student(
    method: MethodSpec,
    teacher: LatentDiffusion,
    trajectories: Trajectories,
    bits: Bits,
    recipe: Recipe,
    seed: int,
    checkpoint: Path | None = None,
) -> Trained:
    """Quantize, calibrate unless a checkpoint holds the ranges, distil and validate.

    Args:
        method: what to build; full precision has nothing to train.
        teacher: full-precision model.
        trajectories: its cached trajectories.
        bits: of the low-bit layers.
        recipe: how to train.
        seed: training seed: low-rank factors, calibration rows, order of trajectories.
        checkpoint: file to resume from and to write; the caller deletes it once all is saved.

    Raises:
        BenchError: the method trains nothing, or its options, the trajectories or the checkpoint
            do not fit; the loss diverged.
    """
    student = build_student(method, teacher, bits, recipe, seed)
    if not student.trainable:
        raise BenchError(f"method '{method.name}' is the teacher itself; there is nothing to train")
    student = student.to(next(teacher.unet.parameters()).device)
    if not (checkpoint and checkpoint.exists()):
        calibrate(student, teacher, trajectories, recipe, seed)
    history = distill(student, teacher, trajectories, recipe, seed, checkpoint)
    error = noise_error(student, teacher, trajectories)
    return Trained(student, history, error, _coverage(student, teacher, trajectories))


@torch.no_grad()
def _coverage(
    student: Student, teacher: LatentDiffusion, trajectories: Trajectories
) -> dict[str, Any]:
    """Coverage of one image's forward pass without guidance."""
    device = next(student.parameters()).device
    labels = None if trajectories.labels is None else trajectories.labels[0, :1].to(device)
    x = trajectories.x_t[0, 0, :1].to(device)
    times = torch.full((1,), trajectories.timesteps[0], device=device)
    return coverage(student, (x, times, teacher.context(labels)))
