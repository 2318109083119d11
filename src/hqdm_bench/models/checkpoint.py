"""Reading and writing latent diffusion models: safetensors under CompVis' names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors
from hqdm_bench.models.latent_diffusion import LatentDiffusion, build_latent_diffusion

if TYPE_CHECKING:
    from hqdm_bench.catalogue import ModelSpec

__all__ = ["load_latent_diffusion", "save_latent_diffusion"]

# Our attribute, the prefix of its keys in a file.
PREFIXES = {
    "unet": "model.diffusion_model.",
    "first_stage": "first_stage_model.",
    "embedder": "cond_stage_model.",
}
SCALE_FACTOR = "scale_factor"

# A CompVis checkpoint carries its schedule too; it follows from the two betas, which are compared.
SCHEDULE = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "lvlb_weights",
    }
)
FIRST_STAGE_LOSS = "first_stage_model.loss."  # left over from training the first stage
KEYS_SHOWN = 5


def save_latent_diffusion(
    model: LatentDiffusion,
    path: Path,
    metadata: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model atomically.

    Args:
        model: its UNet must be a plain one.
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

    Args:
        spec: the catalogue entry the file belongs to.
        path: written by :func:`save_latent_diffusion`, or a converted CompVis checkpoint.

    Raises:
        BenchError: the file is missing or damaged; keys are missing or unexpected; a shape, the
            schedule or the scale factor differs from the catalogue's.
    """
    tensors, _ = read_tensors(path)
    with torch.device("meta"):
        model = build_latent_diffusion(spec)
    _check_keys(_named_tensors(model), tensors, path)
    _check_schedule(model, tensors, path)
    for name, prefix in PREFIXES.items():
        part = getattr(model, name)
        if part is not None:
            state = {key: tensors[prefix + key].float() for key in part.state_dict()}
            part.load_state_dict(state, strict=True, assign=True)
    model.scale_factor = _scale_factor(spec, tensors, path)
    return model.requires_grad_(False).eval()


def _named_tensors(model: LatentDiffusion) -> dict[str, Tensor]:
    """Weights under their names in a file, without the scale factor."""
    named: dict[str, Tensor] = {}
    for name, prefix in PREFIXES.items():
        part = getattr(model, name)
        if part is not None:
            named |= {prefix + key: value for key, value in part.state_dict().items()}
    return named


def _check_keys(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    optional = SCHEDULE | {SCALE_FACTOR}
    missing = expected.keys() - found.keys()
    unexpected = {
        key
        for key in found.keys() - expected.keys() - optional
        if not key.startswith(FIRST_STAGE_LOSS)
    }
    if missing or unexpected:
        raise BenchError(
            f"{path} is not this model: {_listed('missing', missing)}; "
            f"{_listed('unexpected', unexpected)}"
        )
    for key, value in expected.items():
        if found[key].shape != value.shape:
            raise BenchError(
                f"{path} is not this model: {key} is {tuple(found[key].shape)}, "
                f"the catalogue's is {tuple(value.shape)}"
            )


def _listed(what: str, keys: Iterable[str]) -> str:
    names = sorted(keys)
    rest = f", and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
    shown = f" ({', '.join(names[:KEYS_SHOWN])}{rest})" if names else ""
    return f"{len(names)} {what} key(s){shown}"


def _check_schedule(model: LatentDiffusion, tensors: Mapping[str, Tensor], path: Path) -> None:
    stored = tensors.get("alphas_cumprod")
    if stored is None:
        return
    expected = model.schedule.alphas_cumprod
    if stored.shape != expected.shape or not torch.allclose(
        stored.double(), expected, rtol=1e-4, atol=0
    ):
        raise BenchError(
            f"{path}: its noise schedule is not the catalogue's (beta_start, beta_end)"
        )


def _scale_factor(spec: "ModelSpec", tensors: Mapping[str, Tensor], path: Path) -> Tensor:
    stored = tensors.get(SCALE_FACTOR)
    if stored is None and spec.scale_factor is None:
        raise BenchError(f"{path} holds no scale_factor and the catalogue gives none either")
    if stored is None:
        return torch.tensor(spec.scale_factor)
    if spec.scale_factor is not None and abs(stored.item() / spec.scale_factor - 1) > 1e-6:
        raise BenchError(
            f"{path}: scale_factor is {stored.item()}, the catalogue's is {spec.scale_factor}"
        )
    return stored.float().reshape(())
