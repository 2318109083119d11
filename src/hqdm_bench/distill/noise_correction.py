"""Measuring a student's noise errors along the teacher's sampling paths (PTQD)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hqdm_bench.catalogue import Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.methods import CorrectNoise, Student, sampler_of
from hqdm_bench.models import DDIM, LatentDiffusion
from hqdm_bench.quantization import NoiseError

__all__ = ["Paths", "correct_noise", "sampled_noise_errors"]


@dataclass(frozen=True)
class Paths:
    """How the paths are sampled; the defaults are those of PTQD's released script.

    Attributes:
        steps: of the sampler to be corrected: the tables hold for its timesteps only.
        eta: noise share of the paths.
        guidance: scale of the predictions that are compared, that of the sampler.
        images: paths, each with a random class.
        batch: paths at a time; the released script takes one.
    """

    steps: int = 20
    eta: float = 0.0
    guidance: float = 3.0
    images: int = 1024
    batch: int = 8


@torch.no_grad()
def sampled_noise_errors(
    student: Student, teacher: LatentDiffusion, paths: Paths, seed: int
) -> dict[int, NoiseError]:
    """Errors of guided predictions along new paths, which follow the teacher.

    Args:
        student: calibrated and trained.
        teacher: the full-precision model.
        paths: how many, and of which sampler.
        seed: of their noise and labels.

    Returns:
        By timestep, for `NoiseCorrection.fit`.
    """
    ddim = DDIM.from_schedule(teacher.schedule, paths.steps, paths.eta)
    quantized = teacher.with_unet(student)
    device = next(teacher.unet.parameters()).device
    errors = {int(t): NoiseError() for t in ddim.timesteps}
    for first in range(0, paths.images, paths.batch):
        count = min(paths.batch, paths.images - first)
        random = generator("noise-correction", seed, first)
        labels: Tensor | None = None
        if teacher.null_label is not None:
            labels = torch.randint(teacher.null_label, (count,), generator=random).to(device)
        shape = (count, *teacher.latent_shape)
        x = torch.randn(shape, generator=random).to(device)
        for index in reversed(range(ddim.steps)):
            t = int(ddim.timesteps[index])
            exact = teacher.predict(x, t, labels, paths.guidance)
            errors[t].add(exact, quantized.predict(x, t, labels, paths.guidance))
            fresh = torch.randn(shape, generator=random).to(device) if paths.eta > 0 else None
            x = ddim.step(x, exact, index, fresh)
    return errors


def correct_noise(
    stage: CorrectNoise, student: Student, teacher: LatentDiffusion, recipe: Recipe, seed: int
) -> int:
    """Fit a student's noise correction on new paths of the recipe's sampler.

    Args:
        stage: number of paths.
        student: otherwise finished.
        teacher: the full-precision model.
        recipe: its ``post_training`` names the sampler, and how many paths are left.
        seed: of their noise and labels.

    Returns:
        Inputs of the network that were compared.

    Raises:
        BenchError: the student has no correction to fit, or the recipe names no sampler.
    """
    if student.noise_correction is None:
        raise BenchError(f"a {student.method} student has no noise correction to fit")
    sampler = sampler_of(recipe, student.method)
    images = max(2, round(stage.images * sampler.scale.data))
    paths = Paths(sampler.steps, sampler.eta, sampler.guidance, images)
    student.freeze()
    try:
        student.noise_correction.fit(sampled_noise_errors(student, teacher, paths, seed))
    finally:
        student.unfreeze()
    guided = teacher.null_label is not None and sampler.guidance != 1
    return images * sampler.steps * (2 if guided else 1)
