"""The full-precision network at the precision a protocol or recipe asks for."""

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.latent_diffusion import LatentDiffusion

__all__ = ["at_precision"]


class Autocast(nn.Module):
    """A UNet whose convolutions and products run in bfloat16; weights and result are float32.

    Norms, the sinusoidal embedding and the sampler's arithmetic stay in float32.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        """Noise predicted for x (B, C, h, w), float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            predicted: Tensor = self.unet(x, timesteps, context)
        return predicted.float()


def at_precision(model: LatentDiffusion, precision: str) -> LatentDiffusion:
    """The model with its UNet at a precision; first stage and embedder stay in float32.

    Args:
        model: a full-precision model; a student must not be given, its grids need float32.
        precision: ``float32`` gives the model itself, ``bfloat16`` runs its UNet under autocast.

    Raises:
        BenchError: another precision.
    """
    if precision == "float32":
        return model
    if precision != "bfloat16":
        raise BenchError(f"teacher_precision is {precision!r}; allowed: float32, bfloat16")
    return model.with_unet(Autocast(model.unet))
