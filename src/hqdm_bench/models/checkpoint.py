"""Reading and writing latent diffusion models: safetensors under CompVis' names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hqdm_bench.artefacts.checkpoints import read_checkpoint
from hqdm_bench.artefacts.conversion import (
    SCALE_FACTOR,
    SCHEDULE,
    averaged_name,
    check_keys,
    sampling_weights,
)
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.models.latent_diffusion import LatentDiffusion, build_latent_diffusion
from hqdm_bench.models.outlier_channels import add_outlier_channels

if TYPE_CHECKING:
    from hqdm_bench.catalogue import ModelSpec

__all__ = [
    "Conversion",
    "checkpoint_shapes",
    "convert_checkpoint",
    "load_latent_diffusion",
    "save_latent_diffusion",
    "weight_shapes",
]

# Our attribute, the prefix of its keys in a file.
PREFIXES = {
    "unet": "model.diffusion_model.",
    "first_stage": "first_stage_model.",
    "embedder": "cond_stage_model.",
}
SCHEDULE_CHECKED = ("betas", "alphas_cumprod")


@dataclass(frozen=True)
class Conversion:
    """What was made of a checkpoint.

    Attributes:
        ema: the UNet's weights are moving averages.
        tensors: number of weight tensors.
        parameters: number of weights of each part (unet, first_stage, embedder).
        global_step: updates the checkpoint says it was trained for.
    """

    ema: bool
    tensors: int
    parameters: dict[str, int]
    global_step: int | None


def save_latent_diffusion(
    model: LatentDiffusion,
    path: Path,
    metadata: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model atomically.

    Args:
        model: its UNet must be a plain one, neither a student nor with outlier channels.
        path: a ``.safetensors`` file.
        metadata: goes into the header, as JSON.
        dtype: of the stored weights; float16 halves the file and loads back as float32.
    """
    tensors = {key: value.to(dtype) for key, value in _named_tensors(model).items()}
    tensors[SCALE_FACTOR] = model.scale_factor.float()
    write_tensors(path, tensors, metadata)


def load_latent_diffusion(spec: "ModelSpec", path: Path) -> LatentDiffusion:
    """Read a model in float32, frozen and in evaluation mode.

    Every weight must be there, and nothing else but the schedule of a CompVis checkpoint.
    ``spec.outliers`` then puts outlier channels into the UNet, which computes the same.

    Args:
        spec: the catalogue entry the file belongs to, or a variant of it with outlier channels.
        path: written by :func:`save_latent_diffusion` or :func:`convert_checkpoint`.

    Raises:
        BenchError: the file is missing or damaged; keys are missing or unexpected; a shape, the
            schedule or the scale factor differs from the catalogue's; see also
            :func:`~hqdm_bench.models.add_outlier_channels`.
    """
    tensors, _ = read_tensors(path)
    model = _without_memory(spec)
    check_keys(_shapes(model), tensors, SCHEDULE | {SCALE_FACTOR}, str(path))
    _check_schedule(model, tensors, path)
    for name, prefix in PREFIXES.items():
        part = getattr(model, name)
        if part is not None:
            state = {key: tensors[prefix + key].float() for key in part.state_dict()}
            part.load_state_dict(state, strict=True, assign=True)
    model.scale_factor = _scale_factor(spec, tensors, path)
    if spec.outliers:
        model.unet = add_outlier_channels(model.unet, **spec.outliers)
    return model.requires_grad_(False).eval()


def convert_checkpoint(spec: "ModelSpec", source: Path, target: Path) -> Conversion:
    """Convert a CompVis checkpoint to what :func:`load_latent_diffusion` reads.

    The schedule is compared with the catalogue's and left out, like optimizer states. Weights keep
    their precision. Tensors are mapped from the file, so that memory holds no copy of them.

    Args:
        spec: the catalogue entry; with ``ema`` the UNet's weights are the moving averages.
        source: a bare or zipped ``.ckpt``.
        target: a ``.safetensors`` file; its header says what it was made of. An archive is
            extracted beside it meanwhile.

    Raises:
        BenchError: ``source`` is no checkpoint, or one of another model; see
            :func:`~hqdm_bench.artefacts.checkpoints.read_checkpoint` and
            :func:`~hqdm_bench.artefacts.conversion.sampling_weights`.
    """
    checkpoint = read_checkpoint(source, scratch=target.parent)
    model = _without_memory(spec)
    shapes, state = _shapes(model), checkpoint.state_dict
    weights = sampling_weights(state, shapes, spec.ema, str(source))
    _check_schedule(model, state, source, required=True)
    weights[SCALE_FACTOR] = _scale_factor(spec, state, source)
    done = Conversion(spec.ema, len(shapes), _parameters(shapes), checkpoint.global_step)
    header = {
        "model": spec.name,
        "source": source.name,
        "source_sha256": sha256_of(source),
        "ema": done.ema,
        "tensors": done.tensors,
        "parameters": done.parameters,
        "global_step": checkpoint.global_step,
        "epoch": checkpoint.epoch,
        "lightning": checkpoint.lightning,
    }
    write_tensors(target, weights, header)
    return done


def weight_shapes(spec: "ModelSpec") -> dict[str, torch.Size]:
    """Names and shapes of the weights :func:`load_latent_diffusion` asks for."""
    return _shapes(_without_memory(spec))


def checkpoint_shapes(spec: "ModelSpec") -> dict[str, torch.Size]:
    """Names and shapes in the state dict of a model's CompVis checkpoint.

    Beside the weights these are the schedule, the scale factor where the catalogue leaves it to
    the checkpoint and, with ``spec.ema``, the moving averages and their two counters.
    """
    weights = weight_shapes(spec)
    steps = torch.Size([1000])
    shapes = weights | {key: steps for key in SCHEDULE if key != "lvlb_weights"}
    if spec.scale_factor is None:
        shapes[SCALE_FACTOR] = torch.Size([])
    if spec.ema:
        network = {key: value for key, value in weights.items() if key.startswith("model.")}
        shapes |= {averaged_name(key): value for key, value in network.items()}
        shapes |= {"model_ema.decay": torch.Size([]), "model_ema.num_updates": torch.Size([])}
    return shapes


def _without_memory(spec: "ModelSpec") -> LatentDiffusion:
    with torch.device("meta"):
        return build_latent_diffusion(spec)


def _shapes(model: LatentDiffusion) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in _named_tensors(model).items()}


def _named_tensors(model: LatentDiffusion) -> dict[str, Tensor]:
    """Weights under their names in a file, without the scale factor."""
    named: dict[str, Tensor] = {}
    for name, prefix in PREFIXES.items():
        part = getattr(model, name)
        if part is not None:
            named |= {prefix + key: value for key, value in part.state_dict().items()}
    return named


def _parameters(shapes: Mapping[str, torch.Size]) -> dict[str, int]:
    counts = {
        name: sum(shape.numel() for key, shape in shapes.items() if key.startswith(prefix))
        for name, prefix in PREFIXES.items()
    }
    return {name: count for name, count in counts.items() if count}


def _check_schedule(
    model: LatentDiffusion, tensors: Mapping[str, Tensor], path: Path, required: bool = False
) -> None:
    for key in SCHEDULE_CHECKED:
        stored, expected = tensors.get(key), getattr(model.schedule, key)
        if stored is None and not required:
            continue
        if stored is None:
            raise BenchError(f"{path} holds no noise schedule: {key} is missing")
        if stored.shape != expected.shape or not torch.allclose(
            stored.double(), expected, rtol=1e-4, atol=0
        ):
            raise BenchError(
                f"{path}: its noise schedule ({key}) is not the catalogue's (beta_start, beta_end)"
            )


def _scale_factor(spec: "ModelSpec", tensors: Mapping[str, Tensor], path: Path) -> Tensor:
    stored = tensors.get(SCALE_FACTOR)
    if stored is None and spec.scale_factor is None:
        raise BenchError(f"{path} holds no scale_factor and the catalogue gives none either")
    if stored is None:
        return torch.tensor(spec.scale_factor)
    if stored.numel() != 1 or not 0 < stored.item() < float("inf"):
        raise BenchError(f"{path}: scale_factor is {stored.tolist()}, not a positive number")
    if spec.scale_factor is not None and abs(stored.item() / spec.scale_factor - 1) > 1e-6:
        raise BenchError(
            f"{path}: scale_factor is {stored.item()}, the catalogue's is {spec.scale_factor}"
        )
    return stored.float().reshape(())
