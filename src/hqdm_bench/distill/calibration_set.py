"""Calibration inputs: what the network is given along the sampler's own paths."""

import torch
from torch import Tensor

from hqdm_bench.catalogue import PostTraining
from hqdm_bench.common.seeds import generator
from hqdm_bench.models import DDIM, LatentDiffusion, guide

__all__ = ["ROWS", "UNetCall", "calibration_calls"]

UNetCall = tuple[Tensor, Tensor, Tensor | None]  # x, timesteps, context

ROWS = 16  # inputs a call, the batch in which TFMQ-DM's and DMQ's codes observe ranges


@torch.no_grad()
def calibration_calls(
    teacher: LatentDiffusion, sampler: PostTraining, images: int, seed: int, rows: int = ROWS
) -> list[UNetCall]:
    """Inputs of the network at every step of a sampler, along paths of the full-precision model.

    Image i has its own noise and label, which depend on (seed, i) alone. Under guidance both
    inputs of an image are kept, unconditional and conditional. The timesteps are those that the
    network is really given (released code for 400 steps takes 500 and mislabels them).

    Args:
        teacher: full-precision model.
        sampler: steps, eta and guidance.
        images: how many paths.
        seed: of noise and labels.
        rows: inputs a call.

    Returns:
        Arguments (x, timesteps, context) of the UNet, grouped by timestep, ascending.
    """
    ddim = DDIM.from_schedule(teacher.schedule, sampler.steps, sampler.eta)
    device = next(teacher.unet.parameters()).device
    calls: dict[int, list[UNetCall]] = {int(t): [] for t in ddim.timesteps}
    guided = teacher.null_label is not None and sampler.guidance != 1
    count = max(1, rows // 2 if guided else rows)
    for first in range(0, images, count):
        indices = range(first, min(images, first + count))
        random = [generator("calibration-paths", seed, index) for index in indices]
        labels = _labels(teacher, random)
        x = _noise(teacher, random, device)
        for index in reversed(range(ddim.steps)):
            t = int(ddim.timesteps[index])
            call = _call(teacher, x, t, labels, guided)
            calls[t].append(call)
            eps: Tensor = teacher.unet(*call)
            if guided:
                eps = guide(eps.chunk(2), sampler.guidance)
            fresh = _noise(teacher, random, device) if sampler.eta > 0 else None
            x = ddim.step(x, eps, index, fresh)
    return [call for t in sorted(calls) for call in calls[t]]


def _labels(teacher: LatentDiffusion, random: list[torch.Generator]) -> Tensor | None:
    if teacher.null_label is None:
        return None
    device = next(teacher.unet.parameters()).device
    drawn = [torch.randint(teacher.null_label, (), generator=own) for own in random]
    return torch.stack(drawn).to(device)


def _noise(teacher: LatentDiffusion, random: list[torch.Generator], device: torch.device) -> Tensor:
    drawn = [torch.randn(teacher.latent_shape, generator=own) for own in random]
    return torch.stack(drawn).to(device)


def _call(
    teacher: LatentDiffusion, x: Tensor, t: int, labels: Tensor | None, guided: bool
) -> UNetCall:
    """Arguments of the UNet; the unconditional rows first."""
    if guided and labels is not None:
        assert teacher.null_label is not None
        x = torch.cat([x, x])
        labels = torch.cat([torch.full_like(labels, teacher.null_label), labels])
    return x, torch.full((len(x),), t, device=x.device), teacher.context(labels)
