"""From a catalogue entry to a trained embedded model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqdm_bench.models.latent_diffusion import LatentDiffusion, build_latent_diffusion
from hqdm_bench.models.mini.first_stage_training import train_first_stage
from hqdm_bench.models.mini.recipes import TeacherRecipe, first_stage_digest, recipe_digest
from hqdm_bench.models.mini.training import Checkpoint
from hqdm_bench.models.mini.unet_training import set_scale_factor, train_unet

if TYPE_CHECKING:
    from hqdm_bench.catalogue import ModelSpec

__all__ = ["train_teacher"]


def train_teacher(
    spec: "ModelSpec", checkpoint: Path | None = None, progress: bool = True
) -> tuple[LatentDiffusion, dict[str, Any]]:
    """Train first stage, then UNet, as ``spec.data`` and ``spec.teacher`` say.

    The weights are a function of the recipe: a killed run that is started again with the same
    checkpoint folder ends with the same bits (on one machine, with the same number of threads).

    Args:
        spec: an embedded model.
        checkpoint: folder of the two checkpoints, first_stage.safetensors and unet.safetensors;
            delete it once the model is saved. None keeps nothing.
        progress: report on stderr.

    Returns:
        The model, frozen and in evaluation mode, with averaged UNet weights; and a report: recipe,
        digest, parameter counts, reconstruction quality, noise-prediction loss.

    Raises:
        BenchError: the recipe is not valid, or a checkpoint belongs to another one.
    """
    recipe = TeacherRecipe.from_spec(spec)
    model = build_latent_diffusion(spec, recipe.seed)
    digests = {"first_stage": first_stage_digest(spec), "unet": recipe_digest(spec)}
    places = {
        name: Checkpoint(
            checkpoint / f"{name}.safetensors" if checkpoint else None,
            digest,
            recipe.checkpoint_every,
        )
        for name, digest in digests.items()
    }
    first_stage = train_first_stage(model.first_stage, recipe, places["first_stage"], progress)
    model.first_stage.requires_grad_(False).eval()
    set_scale_factor(model, recipe.data.scenes("train"))
    unet = train_unet(model, recipe, places["unet"], progress)
    report = {
        "recipe": recipe.asdict(),
        "recipe_digest": digests["unet"],
        "parameters": _parameters(model),
        "scale_factor": model.scale_factor.item(),
        "validation": {**first_stage, **unet},
    }
    return model.requires_grad_(False).eval(), report


def _parameters(model: LatentDiffusion) -> dict[str, int]:
    parts = {"unet": model.unet, "first_stage": model.first_stage, "embedder": model.embedder}
    return {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in parts.items()
        if part is not None
    }
