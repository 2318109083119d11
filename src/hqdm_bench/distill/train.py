"""From a teacher to a finished student, in one call."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe, Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import digest
from hqdm_bench.distill.calibrate import calibrate
from hqdm_bench.distill.calibration_set import UNetCall, calibration_calls
from hqdm_bench.distill.costs import TrainingCost, measured_cost
from hqdm_bench.distill.history import History
from hqdm_bench.distill.loop import distill, trained_losses
from hqdm_bench.distill.noise_correction import correct_noise
from hqdm_bench.distill.post_training import Work, run_stage
from hqdm_bench.distill.stage_log import StageLog
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.distill.validate import NoiseErrors, noise_errors
from hqdm_bench.methods import (
    Calibrate,
    CorrectNoise,
    Distill,
    Student,
    build_student,
    sampler_of,
)
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.quantization import coverage

__all__ = ["Trained", "stages_file", "train_student"]


@dataclass(frozen=True)
class Trained:
    """A student and what is known about its training.

    Attributes:
        history: losses of the distillation; empty for a method without one.
        errors: on held-out trajectories, by image.
        coverage: shares of multiply-accumulates and weights by bit-width, size, bit operations.
        cost: what its stages took; the part of it that a clock gives is no part of the summary.
    """

    student: Student
    history: History
    errors: NoiseErrors
    coverage: dict[str, Any]
    cost: TrainingCost

    @property
    def noise_error(self) -> float:
        """Relative squared error on held-out trajectories."""
        return self.errors.relative

    def summary(self) -> dict[str, Any]:
        """What ``training.json`` says about the training."""
        means = self.history.epoch_means()
        return {
            "options": self.student.options.resolved(),
            "noise_error": self.noise_error,
            "noise_errors": asdict(self.errors),
            "loss": {"first_epoch": means[0], "last_epoch": means[-1]} if means else None,
            "coverage": self.coverage,
            "cost": self.cost.repeatable(),
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
    """Quantize, run the method's stages unless checkpoints hold them, and validate.

    Args:
        method: what to build; full precision has nothing to do.
        teacher: full-precision model.
        trajectories: its cached trajectories; post-training methods are only measured on them.
        bits: of the low-bit layers.
        recipe: how to train.
        seed: training seed: low-rank factors, calibration rows and paths, order of trajectories.
        checkpoint: file of the distillation to resume from and to write; what comes before it is
            kept in `stages_file`. The caller deletes both once all is saved.

    Raises:
        BenchError: the method has no stages, or its options, the trajectories or a checkpoint do
            not fit; a loss diverged.
    """
    student = build_student(method, teacher, bits, recipe, seed)
    if not student.options.stages():
        raise BenchError(f"method '{method.name}' is the teacher itself; there is nothing to train")
    _require_steps(student, trajectories)
    student = student.to(next(teacher.unet.parameters()).device)
    run = _Run(student, teacher, trajectories, recipe, seed, checkpoint)
    history, cost = run.stages()
    errors = noise_errors(student, teacher, trajectories)
    return Trained(student, history, errors, _coverage(student, teacher, trajectories), cost)


def _require_steps(student: Student, trajectories: Trajectories) -> None:
    """Refuse tables that the noise error cannot be measured with, before any work is done."""
    assert student.step is not None
    if student.options.resolved().get("steps") != "by_timestep":
        return
    missing = sorted(set(trajectories.timesteps) - set(student.step.timesteps))
    if missing:
        raise BenchError(
            f"steps 'by_timestep' knows the {len(student.step)} timesteps of its tables, and the "
            f"trajectories that the noise error is measured on have {missing[0]}, too; take steps "
            "'pick' or 'interpolate', or trajectories at the sampler's steps"
        )


def stages_file(checkpoint: Path) -> Path:
    """Where the stages before a distillation are kept."""
    return checkpoint.with_name(f"{checkpoint.stem}.stages.safetensors")


class _Run:
    """The stages of one student of a diffusion model."""

    def __init__(
        self,
        student: Student,
        teacher: LatentDiffusion,
        trajectories: Trajectories,
        recipe: Recipe,
        seed: int,
        checkpoint: Path | None,
    ) -> None:
        self.student, self.teacher, self.trajectories = student, teacher, trajectories
        self.recipe, self.seed, self.checkpoint = recipe, seed, checkpoint
        self.history = History(trajectories.timesteps)
        path = None if checkpoint is None else stages_file(checkpoint)
        self.log = StageLog(student, path, self._identity())
        calls: list[UNetCall] = []
        scale = Scale()
        if student.options.post_training:
            scale = sampler_of(recipe, student.method).scale
            with self.log.timed("0 draw inputs"):
                calls = self._draw_inputs()
        self.drawn = sum(len(x) for x, _, _ in calls)
        self.work = Work(student, teacher.unet, calls, self.log, scale, seed)

    def _draw_inputs(self) -> list[UNetCall]:
        """Calibration inputs at the timesteps of the student's tables."""
        assert self.student.step is not None
        sampler = sampler_of(self.recipe, self.student.method)
        images = max(1, round(self.student.options.calibration_images * sampler.scale.data))
        rows = set(self.student.step.timesteps)
        drawn = calibration_calls(self.teacher, sampler, images, self.seed)
        return [call for call in drawn if int(call[1][0]) in rows]

    def stages(self) -> tuple[History, TrainingCost]:
        """Run what is left of them."""
        for index, stage in enumerate(self.student.options.stages()):
            with self.log.running(index, stage) as left:
                if left:
                    self._run(stage)
                elif isinstance(stage, Distill) and self.checkpoint:
                    self.history.losses = trained_losses(self.checkpoint)
        return self.history, measured_cost(self.student, self.log, self.drawn + self.log.samples)

    def _run(self, stage: Any) -> None:
        if isinstance(stage, Distill):
            self.history = distill(
                self.student,
                self.teacher,
                self.trajectories,
                self.recipe,
                self.seed,
                self.checkpoint,
                note=self.log.note,
            )
            self.log.samples += self.recipe.updates * self._rows()
        elif isinstance(stage, CorrectNoise):
            self.log.samples += correct_noise(
                stage, self.student, self.teacher, self.recipe, self.seed
            )
        elif isinstance(stage, Calibrate) and not self.student.options.post_training:
            # The checkpoint of the distillation has the ranges.
            if not (self.checkpoint and self.checkpoint.exists()):
                calibrate(self.student, self.teacher, self.trajectories, self.recipe, self.seed)
            steps = self.recipe.steps if self.recipe.calibration == "per_step" else 1
            self.log.samples += steps * self.recipe.calibration_images
        else:
            run_stage(stage, self.work)

    def _rows(self) -> int:
        """Inputs of the network in an update."""
        labels = self.trajectories.labels
        guided = self.teacher.guides(labels, self.recipe.guidance)
        return self.recipe.batch * (2 if guided else 1)

    def _identity(self) -> str:
        student = self.student
        return digest(
            {
                "student": [student.method, student.options.resolved(), str(student.bits)],
                "stages": [repr(stage) for stage in student.options.stages()],
                "seed": self.seed,
                "recipe": self.recipe.asdict(),
                "teacher": digest(self.trajectories.eps[0, 0].flatten().tolist()),
            }
        )


@torch.no_grad()
def _coverage(
    student: Student, teacher: LatentDiffusion, trajectories: Trajectories
) -> dict[str, Any]:
    """Coverage of one image's forward pass without guidance."""
    device = next(teacher.parameters()).device
    labels = None if trajectories.labels is None else trajectories.labels[0, :1].to(device)
    x = trajectories.x_t[0, 0, :1].to(device)
    times = torch.full((1,), trajectories.timesteps[0], device=device)
    return coverage(student, (x, times, teacher.context(labels)))
