"""Training of the embedded UNets on the latents of a trained first stage."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hqdm_bench.common.progress import Progress
from hqdm_bench.common.seeds import generator
from hqdm_bench.models.latent_diffusion import LatentDiffusion
from hqdm_bench.models.mini.recipes import TeacherRecipe
from hqdm_bench.models.mini.scenes import SceneSet
from hqdm_bench.models.mini.training import Checkpoint, TrainingState, cosine_rate
from hqdm_bench.models.schedule import TRAINING_STEPS

__all__ = ["encode_scenes", "set_scale_factor", "train_unet"]

ENCODED_AT_ONCE = 64
SCALE_FACTOR_IMAGES = 512


@torch.no_grad()
def encode_scenes(model: LatentDiffusion, scenes: SceneSet, count: int) -> Tensor:
    """Scaled latents (N, C, h, w) of the first ``count`` images of a set."""
    parts = []
    for start in range(0, count, ENCODED_AT_ONCE):
        numbers = range(start, min(start + ENCODED_AT_ONCE, count))
        parts.append(model.encode(scenes.tensors(numbers)))
    return torch.cat(parts)


def set_scale_factor(model: LatentDiffusion, scenes: SceneSet) -> None:
    """Set the scale factor that gives latents unit variance, where the catalogue leaves it open."""
    if model.spec.scale_factor is None:
        model.scale_factor.fill_(1.0)
        deviation = encode_scenes(model, scenes, SCALE_FACTOR_IMAGES).std()
        model.scale_factor.copy_(1 / deviation)


def train_unet(
    model: LatentDiffusion, recipe: TeacherRecipe, checkpoint: Checkpoint, progress: bool = True
) -> dict[str, Any]:
    """Train UNet and class embedder in place; they end up with the averaged weights.

    The loss is the squared error of the predicted noise at uniformly drawn timesteps (Ho et al.,
    2020). Every random number of an update comes from the update's own stream.

    Returns:
        Report: noise-prediction loss on held-out images.
    """
    settings = recipe.unet
    scenes = recipe.data.scenes("train")
    latents = encode_scenes(model, scenes, settings.images)
    labels = scenes.labels(range(settings.images)) if model.embedder is not None else None
    model.unet.to(memory_format=torch.channels_last)
    modules = {"unet": model.unet, "embedder": model.embedder}
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    trained = {name: module for name, module in modules.items() if module is not None}
    state = TrainingState(trained, options, settings.ema_decay)
    done, tensors = checkpoint.load()
    if done:
        state.restore(tensors)
    with Progress("UNet", settings.iterations) as bar:
        for update in range(done, settings.iterations):
            random = generator("unet", recipe.seed, update)
            chosen = torch.randint(len(latents), (settings.batch,), generator=random)
            chosen_labels = None if labels is None else labels[chosen]
            loss = noise_loss(model, latents[chosen], chosen_labels, settings.label_drop, random)
            state.step(loss, update, cosine_rate(update, settings.iterations, settings.warmup))
            if checkpoint.due(update + 1, settings.iterations):
                checkpoint.save(update + 1, state.tensors())
            if progress:
                bar.update(update + 1, loss=loss.item())
    state.use_average()
    model.unet.to(memory_format=torch.contiguous_format)
    return {"validation_loss": validation_loss(model, recipe)}


def noise_loss(
    model: LatentDiffusion,
    latents: Tensor,
    labels: Tensor | None,
    label_drop: float,
    random: torch.Generator,
) -> Tensor:
    """Mean squared error of the predicted noise, ().

    Args:
        model: its schedule mixes latents and noise.
        latents: (B, C, h, w), scaled.
        labels: (B,), of which a share ``label_drop`` becomes the null class; None if unconditional.
        label_drop: the share.
        random: source of timesteps, noise and drops.
    """
    count = len(latents)
    timesteps = torch.randint(TRAINING_STEPS, (count,), generator=random)
    noise = torch.randn(latents.shape, generator=random)
    if labels is not None:
        assert model.null_label is not None  # a model with labels has a null class
        dropped = torch.rand(count, generator=random) < label_drop
        labels = labels.masked_fill(dropped, model.null_label)
    alphas = model.schedule.alphas_cumprod[timesteps].float().view(-1, 1, 1, 1)
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    return functional.mse_loss(model.unet(noisy, timesteps, model.context(labels)), noise)


@torch.no_grad()
def validation_loss(model: LatentDiffusion, recipe: TeacherRecipe) -> float:
    """Loss on the validation stream, every label kept."""
    scenes, count = recipe.data.scenes("validation"), recipe.validation_images
    latents = encode_scenes(model, scenes, count)
    labels = scenes.labels(range(count)) if model.embedder is not None else None
    random = generator("unet-validation", recipe.seed)
    total = 0.0
    for start in range(0, count, ENCODED_AT_ONCE):
        part = slice(start, start + ENCODED_AT_ONCE)
        part_labels = None if labels is None else labels[part]
        loss = noise_loss(model, latents[part], part_labels, 0.0, random)
        total += loss.item() * len(latents[part])
    return total / count
