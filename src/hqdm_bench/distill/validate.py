"""How well a student predicts the teacher's noise on trajectories it has not seen."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.methods import Student
from hqdm_bench.models import LatentDiffusion

__all__ = ["NoiseErrors", "noise_error", "noise_errors"]


@dataclass(frozen=True)
class NoiseErrors:
    """Errors on the held-out trajectories, image by image.

    Attributes:
        errors: (N,) squared error ||e_student - e_teacher||^2 of an image, summed over the steps.
        energies: (N,) ||e_teacher||^2 of the same image, summed alike.
    """

    errors: tuple[float, ...]
    energies: tuple[float, ...]

    @property
    def relative(self) -> float:
        """Sum of the errors over the sum of the energies."""
        return sum(self.errors) / sum(self.energies)


def noise_error(student: Student, teacher: LatentDiffusion, trajectories: Trajectories) -> float:
    """Relative squared error of the guided noise prediction on the held-out trajectories.

    sum ||e_student - e_teacher||^2 / sum ||e_teacher||^2 over all steps, trajectories and images,
    both at the teacher's x_t. It is a ratio of energies, without a square root.

    Raises:
        BenchError: no trajectory is held out.
    """
    return noise_errors(student, teacher, trajectories).relative


@torch.no_grad()
def noise_errors(
    student: Student, teacher: LatentDiffusion, trajectories: Trajectories
) -> NoiseErrors:
    """The two sums of `noise_error`, image by image.

    Raises:
        BenchError: no trajectory is held out.
    """
    held_out = trajectories.held_out
    if not len(held_out):
        raise BenchError("no trajectory is held out; set validation_trajectories to 1 or more")
    model = teacher.with_unet(student)
    device = next(model.unet.parameters()).device
    labels = None if held_out.labels is None else held_out.labels.flatten().to(device)
    errors, energies = [], []
    student.freeze()
    try:
        for index, timestep in enumerate(held_out.timesteps):
            x = held_out.x_t[:, index].flatten(0, 1).to(device)
            target = held_out.eps[:, index].flatten(0, 1).to(device).double()
            predicted = model.predict(x, timestep, labels, held_out.guidance).double()
            errors.append(_energy(predicted - target).cpu())
            energies.append(_energy(target).cpu())
    finally:
        student.unfreeze()
    return NoiseErrors(*(tuple(torch.stack(rows).sum(0).tolist()) for rows in (errors, energies)))


def _energy(x: Tensor) -> Tensor:
    """(N,) sums of squares of N images."""
    return x.square().flatten(1).sum(1)
