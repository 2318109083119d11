"""The sampling loop."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqdm_bench.catalogue import Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import DDIM, LatentDiffusion
from hqdm_bench.quantization import NoiseCorrection
from hqdm_bench.sample.labels import image_labels
from hqdm_bench.sample.noise import ImageNoise

__all__ = ["Trace", "ddim_sample"]


class Trace:
    """Latents of the first images of a batch after each sampling step.

    Args:
        images: how many of the batch are recorded.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._steps: list[Tensor] = []

    def record(self, x: Tensor) -> None:
        """Take the latents (B, C, h, w) after a step."""
        if self._images:
            self._steps.append(x[: self._images].to("cpu", torch.float32, copy=True))

    def result(self) -> list[NDArray[np.float32]]:
        """One (images, S, C, h, w) array, or none if nothing is recorded."""
        return [torch.stack(self._steps, 1).numpy()] if self._steps else []


@torch.no_grad()
def ddim_sample(
    model: LatentDiffusion, protocol: Protocol, indices: Sequence[int], trace: Trace | None = None
) -> Tensor:
    """Denoise one batch with DDIM (Song et al. 2021, Eq. 12).

    A student with a noise correction has its guided predictions corrected, and less noise added
    where there is any.

    Args:
        model: teacher, or a student in its place.
        protocol: steps, eta, guidance, label policy and seed.
        indices: image numbers of the batch. Noise and label of an image do not depend on the
            others.
        trace: is given the latents after each step, the noisiest first.

    Returns:
        (B, C, h, w) float32 latents x_0 on the model's device.

    Raises:
        BenchError: the label policy does not fit the model, or the step count the schedule
            or the noise correction, or the latter was never measured.
    """
    ddim = DDIM.from_schedule(model.schedule, protocol.steps, protocol.eta)
    correction = _correction(model)
    if correction is not None:
        ddim = correction.schedule(ddim)
    device = next(model.unet.parameters()).device
    labels: Tensor | None = None
    if model.null_label is not None or protocol.labels != "none":
        labels = image_labels(protocol, model.null_label)[list(indices)].to(device)
    noise = ImageNoise(protocol.seed, indices, tuple(model.latent_shape))
    x = noise.draw().to(device)
    for index in reversed(range(protocol.steps)):
        t = int(ddim.timesteps[index])
        prediction = model.predict(x, t, labels, protocol.guidance)
        if correction is not None:
            prediction = correction.correct(prediction, t)
        fresh = noise.draw().to(device) if protocol.eta > 0 else None
        x = ddim.step(x, prediction, index, fresh)
        if trace is not None:
            trace.record(x)
    return x


def _correction(model: LatentDiffusion) -> NoiseCorrection | None:
    """The noise correction of the student in the UNet's place, if it has one."""
    found = getattr(model.unet, "noise_correction", None)
    if not isinstance(found, NoiseCorrection):
        return None
    if not found.calibrated:
        raise BenchError(
            "the student's noise correction was never measured; fit it before sampling, see "
            "distill.sampled_noise_errors"
        )
    return found
