"""How well a student predicts the teacher's noise on trajectories it has not seen."""

import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.methods import Student
from hqdm_bench.models import LatentDiffusion

__all__ = ["noise_error"]


@torch.no_grad()
def noise_error(student: Student, teacher: LatentDiffusion, trajectories: Trajectories) -> float:
    """Relative squared error of the guided noise prediction on the held-out trajectories.

    sum ||e_student - e_teacher||^2 / sum ||e_teacher||^2 over all steps, trajectories and images,
    both at the teacher's x_t. It is a ratio of energies, without a square root.

    Raises:
        BenchError: no trajectory is held out.
    """
    held_out = trajectories.held_out
    if not len(held_out):
        raise BenchError("no trajectory is held out; set validation_trajectories to 1 or more")
    model = teacher.with_unet(student)
    device = next(model.unet.parameters()).device
    labels = None if held_out.labels is None else held_out.labels.flatten().to(device)
    error = energy = 0.0
    student.freeze()
    try:
        for index, timestep in enumerate(held_out.timesteps):
            x = held_out.x_t[:, index].flatten(0, 1).to(device)
            target = held_out.eps[:, index].flatten(0, 1).to(device).double()
            predicted = model.predict(x, timestep, labels, held_out.guidance).double()
            error += float((predicted - target).square().sum())
            energy += float(target.square().sum())
    finally:
        student.unfreeze()
    return error / energy
