"""Training of the embedded first stages: VQ-f4 and KL-f8.

The autoencoders have CompVis' structure but are trained without discriminator and perceptual loss:
an absolute, a squared and a gradient error are enough for drawn scenes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.common.progress import Progress
from hqdm_bench.common.seeds import generator
from hqdm_bench.models.first_stage import KLFirstStage, VQFirstStage
from hqdm_bench.models.mini.recipes import FirstStageRecipe, TeacherRecipe
from hqdm_bench.models.mini.scenes import to_tensor
from hqdm_bench.models.mini.training import Checkpoint, TrainingState, cosine_rate

__all__ = ["psnr", "train_first_stage"]

WARMUP = 50  # updates
RESTARTS_UNTIL = 0.7  # share of the training after which the codebook is left to settle


@dataclass(frozen=True)
class Outcome:
    """What one batch gives.

    Attributes:
        images: reconstructions (B, 3, R, R).
        penalty: () loss besides the image error.
        vectors: encodings (B * h * w, C) that codes may be restarted from; None for kl.
        codes: rows of the codebook that were used; None for kl.
    """

    images: Tensor
    penalty: Tensor
    vectors: Tensor | None = None
    codes: Tensor | None = None


def train_first_stage(
    first_stage: VQFirstStage | KLFirstStage,
    recipe: TeacherRecipe,
    checkpoint: Checkpoint,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a first stage in place.

    Afterwards the latents are centred (both kinds) and brought to unit variance (vq, whose models
    have no scale factor), by folding shift and scale into the neighbouring layers.

    Returns:
        Report: peak signal-to-noise ratio on held-out images (dB), share of the codes in use (vq).
    """
    settings = recipe.first_stage
    images = torch.from_numpy(recipe.data.scenes("train").images(range(settings.images)))
    first_stage.to(memory_format=torch.channels_last)
    options = {"lr": settings.learning_rate, "betas": (0.9, 0.99), "weight_decay": 0.0}
    state = TrainingState({"first_stage": first_stage}, options, None)
    done, tensors = checkpoint.load()
    if done:
        state.restore(tensors)
    used = tensors.get("used", torch.zeros(_codes(first_stage), dtype=torch.bool))
    with Progress("first stage", settings.iterations) as bar:
        for update in range(done, settings.iterations):
            random = generator("first-stage", recipe.seed, update)
            chosen = torch.randint(len(images), (settings.batch,), generator=random)
            batch = to_tensor(images[chosen].numpy()).to(memory_format=torch.channels_last)
            outcome = forward(first_stage, batch, settings, random)
            loss = image_error(outcome.images, batch, settings.gradient_weight) + outcome.penalty
            state.step(loss, update, cosine_rate(update, settings.iterations, WARMUP))
            if isinstance(first_stage, VQFirstStage):
                restart_codes(first_stage, outcome, used, update, settings, random)
            if checkpoint.due(update + 1, settings.iterations):
                checkpoint.save(update + 1, {**state.tensors(), "used": used})
            if progress:
                bar.update(update + 1, loss=loss.item())
    first_stage.to(memory_format=torch.contiguous_format)
    normalise(first_stage, images[: 16 * settings.batch])
    return evaluate(first_stage, recipe)


def forward(
    first_stage: VQFirstStage | KLFirstStage,
    batch: Tensor,
    settings: FirstStageRecipe,
    random: torch.Generator,
) -> Outcome:
    """Encode, quantize (vq) or draw a latent (kl), decode."""
    if isinstance(first_stage, VQFirstStage):
        encoding = first_stage.encode(batch)
        quantized = first_stage.quantize(encoding)
        penalty = quantized.codebook_loss + settings.commitment * quantized.commitment_loss
        vectors = encoding.detach().permute(0, 2, 3, 1).flatten(0, 2)
        images = first_stage.decode_codes(quantized.z)
        return Outcome(images, penalty, vectors, quantized.indices.flatten())
    mean, log_variance = first_stage.moments(batch)
    noise = torch.randn(mean.shape, generator=random)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
    images = first_stage.decode(mean + (0.5 * log_variance).exp() * noise)
    return Outcome(images, settings.kl_weight * divergence / batch.numel())


@torch.no_grad()
def restart_codes(
    first_stage: VQFirstStage,
    outcome: Outcome,
    used: Tensor,
    update: int,
    settings: FirstStageRecipe,
    random: torch.Generator,
) -> None:
    """Every few updates, move codes that nothing used since to encodings of the current batch.

    At the first update every code moves: the codebook starts from data.
    """
    assert outcome.vectors is not None  # a vq outcome has both
    used[outcome.codes] = True
    if update % settings.restart_every or update > RESTARTS_UNTIL * settings.iterations:
        return
    dead = (~used if update else torch.ones_like(used)).nonzero()[:, 0]
    chosen = torch.randint(len(outcome.vectors), (len(dead),), generator=random)
    vectors = outcome.vectors[chosen]
    jitter = torch.randn(vectors.shape, generator=random)
    first_stage.quantize.embedding.weight[dead] = vectors + 1e-3 * outcome.vectors.std() * jitter
    used.zero_()


def image_error(images: Tensor, target: Tensor, gradient_weight: float) -> Tensor:
    """Absolute plus squared error plus absolute error of the differences between neighbours."""
    error = images - target
    rows, columns = error.diff(dim=2).abs().mean(), error.diff(dim=3).abs().mean()
    return error.abs().mean() + error.square().mean() + gradient_weight * (rows + columns)


@torch.no_grad()
def normalise(first_stage: VQFirstStage | KLFirstStage, images: Tensor) -> None:
    """Centre the latents, and scale those of a VQ model to unit variance.

    What the model computes stays the same up to rounding: the 1x1 convolutions around the latent
    and the codebook take the inverse.

    Args:
        first_stage: changed in place.
        images: (N, R, R, 3) uint8, of which mean and variance are taken.
    """
    latents = torch.cat([first_stage.encode(to_tensor(part.numpy())) for part in images.split(64)])
    mean = latents.mean((0, 2, 3))
    inwards, outwards = first_stage.quant_conv, first_stage.post_quant_conv
    assert inwards.bias is not None  # both convolutions are built
    assert outwards.bias is not None  # with a bias
    inwards.bias[: len(mean)] -= mean
    outwards.bias += outwards.weight[:, :, 0, 0] @ mean
    if isinstance(first_stage, VQFirstStage):
        deviation = (latents - mean.view(1, -1, 1, 1)).std()
        inwards.weight /= deviation
        inwards.bias /= deviation
        outwards.weight *= deviation
        codebook = first_stage.quantize.embedding.weight
        codebook.copy_((codebook - mean) / deviation)


@torch.no_grad()
def evaluate(first_stage: VQFirstStage | KLFirstStage, recipe: TeacherRecipe) -> dict[str, Any]:
    """Reconstruction quality on the validation stream."""
    images = recipe.data.scenes("validation").tensors(range(recipe.validation_images))
    latents = torch.cat([first_stage.encode(part) for part in images.split(64)])
    decoded = torch.cat([first_stage.decode(part) for part in latents.split(64)])
    report: dict[str, Any] = {"psnr": psnr(decoded, images).mean().item()}
    if isinstance(first_stage, VQFirstStage):
        codes = first_stage.quantize(latents).indices.unique()
        report["codes_used"] = len(codes) / _codes(first_stage)
    return report


def psnr(images: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (dB) of each image, (N,), for values in [-1, 1]."""
    error = (images.clamp(-1, 1) - target).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / error)


def _codes(first_stage: VQFirstStage | KLFirstStage) -> int:
    """Size of the codebook; 0 for a first stage without one."""
    if isinstance(first_stage, VQFirstStage):
        return first_stage.quantize.embedding.num_embeddings
    return 0
