"""A latent diffusion model: UNet, first stage, class embedder and noise schedule as one thing."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import derive_seed
from hqdm_bench.models.embedder import ClassEmbedder
from hqdm_bench.models.first_stage import KLFirstStage, VQFirstStage, build_first_stage
from hqdm_bench.models.schedule import NoiseSchedule
from hqdm_bench.models.unet import UNet

if TYPE_CHECKING:
    from hqdm_bench.catalogue import ModelSpec

__all__ = ["LatentDiffusion", "build_latent_diffusion", "guide"]

Built = TypeVar("Built", bound=nn.Module)


def guide(branches: Sequence[Tensor], guidance: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, 2022): e_u + s (e_c - e_u), entry by entry.

    Args:
        branches: the unconditional prediction e_u and the conditional one e_c, of one shape.
        guidance: the scale s.
    """
    unconditional, conditional = branches
    return unconditional + guidance * (conditional - unconditional)


class LatentDiffusion(nn.Module):
    """Everything needed to turn noise into images.

    Args:
        spec: the catalogue entry.
        unet: predicts noise from (x, timesteps, context); the teacher's or a student.
        first_stage: images to latents and back.
        embedder: class labels to tokens; None for an unconditional model.
        scale_factor: () float32; latents of the first stage are multiplied by it.

    Attributes:
        schedule: the noise schedule.
        null_label: label of the unconditional prediction, or None.
        latent_shape: (C, h, w).
    """

    scale_factor: Tensor

    def __init__(
        self,
        spec: "ModelSpec",
        unet: nn.Module,
        first_stage: VQFirstStage | KLFirstStage,
        embedder: ClassEmbedder | None,
        scale_factor: Tensor,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.unet = unet
        self.first_stage = first_stage
        self.embedder = embedder
        self.schedule = NoiseSchedule(spec.beta_start, spec.beta_end)
        self.null_label: int | None = spec.condition["n_classes"] - 1 if spec.condition else None
        size = first_stage.config.latent_resolution
        self.latent_shape: tuple[int, int, int] = (spec.unet["in_channels"], size, size)
        self.register_buffer("scale_factor", scale_factor)

    def context(self, labels: Tensor | None) -> Tensor | None:
        """Tokens (B, 1, D) of labels (B,); None for an unconditional model.

        Raises:
            BenchError: labels for an unconditional model, or none for a conditional one.
        """
        if (labels is None) != (self.embedder is None):
            state = "unconditional" if self.embedder is None else "class-conditional"
            wanted = "no labels" if self.embedder is None else "labels (B,)"
            raise BenchError(f"model '{self.spec.name}' is {state}; give it {wanted}")
        return None if self.embedder is None else self.embedder(labels)

    def guides(self, labels: Tensor | None, guidance: float) -> bool:
        """Whether `predict` needs an unconditional prediction beside the conditional one."""
        return labels is not None and self.null_label is not None and guidance != 1

    def predict(self, x: Tensor, t: int, labels: Tensor | None, guidance: float = 1.0) -> Tensor:
        """Noise predicted under classifier-free guidance.

        Without an embedder, and at s = 1, there is only the one pass.

        Args:
            x: latents (B, C, h, w).
            t: timestep of all rows.
            labels: (B,) or None.
            guidance: the scale s.

        Returns:
            (B, C, h, w).
        """
        if labels is None or not self.guides(labels, guidance):
            return self.unet(x, self._timesteps(x, t), self.context(labels))
        return guide(self.predict_branches(x, t, labels).chunk(2), guidance)

    def predict_branches(self, x: Tensor, t: int, labels: Tensor) -> Tensor:
        """Both predictions that guidance combines; they go through the UNet as one batch.

        Args:
            x: latents (B, C, h, w).
            t: timestep of all rows.
            labels: (B,).

        Returns:
            (2B, C, h, w): the unconditional rows, then the conditional ones.

        Raises:
            BenchError: the model is unconditional.
        """
        if self.null_label is None:
            raise BenchError(f"model '{self.spec.name}' is unconditional; it has one prediction")
        doubled = torch.cat([x, x])
        context = self.context(torch.cat([torch.full_like(labels, self.null_label), labels]))
        both: Tensor = self.unet(doubled, self._timesteps(doubled, t), context)
        return both

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W) of latents; in [-1, 1] up to overshoot, which is not clamped here."""
        return self.first_stage.decode(z / self.scale_factor)

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]."""
        return self.first_stage.encode(images) * self.scale_factor

    def with_unet(self, unet: nn.Module) -> "LatentDiffusion":
        """The same model around another UNet; everything else is shared, not copied."""
        other = LatentDiffusion(self.spec, unet, self.first_stage, self.embedder, self.scale_factor)
        other.training = self.training
        return other

    @staticmethod
    def _timesteps(x: Tensor, t: int) -> Tensor:
        return torch.full((x.shape[0],), t, dtype=torch.long, device=x.device)


def build_latent_diffusion(spec: "ModelSpec", seed: int = 0) -> LatentDiffusion:
    """A model with random weights; output convolutions of residual branches start at zero.

    Each part draws from its own stream, and the caller's random state is left as it was. A scale
    factor the catalogue leaves open starts at 1. Outlier channels the catalogue asks for come with
    trained weights, see :func:`~hqdm_bench.models.load_latent_diffusion`.

    Args:
        spec: the catalogue entry.
        seed: of the weights.

    Raises:
        BenchError: the entry has a key or a value that is not supported.
    """
    embedder = None
    if condition := spec.condition:
        embedder = _seeded(
            lambda: ClassEmbedder(condition["n_classes"], condition["embed_dim"]), "embedder", seed
        )
    return LatentDiffusion(
        spec,
        _seeded(lambda: UNet(**spec.unet), "unet", seed),
        _seeded(lambda: build_first_stage(spec.first_stage), "first-stage", seed),
        embedder,
        torch.tensor(1.0 if spec.scale_factor is None else spec.scale_factor),
    )


def _seeded(build: Callable[[], Built], part: str, seed: int) -> Built:
    """Build a module whose initial weights depend on (part, seed) only.

    PyTorch's initialisers draw from the default generator; the CPU's is borrowed and put back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed("initial-weights", part, seed))
        return build()
