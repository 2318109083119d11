"""Checkpoints with random weights in the format of the published ones, to rehearse their path."""

import contextlib
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from hqdm_bench.artefacts.conversion import SCALE_FACTOR, averaged_name
from hqdm_bench.common.files import atomic_path
from hqdm_bench.common.seeds import generator
from hqdm_bench.models.checkpoint import weight_shapes
from hqdm_bench.models.schedule import NoiseSchedule

if TYPE_CHECKING:
    from hqdm_bench.catalogue import ModelSpec

__all__ = ["stand_in_state_dict", "write_stand_in_checkpoint"]

LIGHTNING = "1.4.2"  # the version CompVis' environment asks for
CALLBACK = ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
SCALE = 0.5  # of the latents, where the catalogue leaves it to the checkpoint
RAW_DISTANCE = 0.3  # of raw weights from their averages, in units of the weights' spread
MEMBER, MEMBER_DATE = "model.ckpt", (2021, 12, 21, 0, 0, 0)


def write_stand_in_checkpoint(
    spec: "ModelSpec",
    path: Path,
    seed: int,
    style: Literal["bare", "zip"] = "bare",
    legacy: bool = False,
) -> None:
    """Write random weights of a model as PyTorch Lightning would have saved them.

    Args:
        spec: the model; its own sizes are used.
        path: the file to write.
        seed: of the weights. Equal arguments give equal bytes, except for ``legacy``.
        style: a bare checkpoint, or a zip archive with the member ``model.ckpt``.
        legacy: torch's format before 1.6, which cannot be mapped into memory.
    """
    state = stand_in_state_dict(spec, seed)
    with atomic_path(path) as temporary:
        if style == "bare":
            _save(state, temporary, legacy)
            return
        bare = temporary.with_name(temporary.name + ".ckpt")
        try:
            _save(state, bare, legacy)
            _pack(bare, temporary)
        finally:
            bare.unlink(missing_ok=True)


def stand_in_state_dict(spec: "ModelSpec", seed: int) -> dict[str, Tensor]:
    """Random weights under all the names of a model's checkpoint.

    Every weight is drawn, those a new model starts at zero included, so that the network reacts to
    each of its inputs and parameters. Spreads are PyTorch's defaults, which keeps activations of
    any width finite.

    Args:
        spec: the model. With ``ema`` there are moving averages too, which differ from the weights.
        seed: of the weights; each tensor has a stream of its own.
    """
    shapes = weight_shapes(spec)
    averaged = {key for key in shapes if spec.ema and key.startswith("model.")}
    state: dict[str, Tensor] = schedule_buffers(NoiseSchedule(spec.beta_start, spec.beta_end))
    if spec.scale_factor is None:
        state[SCALE_FACTOR] = torch.tensor(SCALE)
    averages: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        state[key] = _drawn(key, shape, seed)
        if key in averaged:
            averages[averaged_name(key)] = state[key]
            state[key] = state[key] + RAW_DISTANCE * _noise(key, shape, "raw", seed)
    if averages:
        state |= {
            "model_ema.decay": torch.tensor(0.9999),
            "model_ema.num_updates": torch.tensor(1, dtype=torch.int32),
        }
    return state | averages


def schedule_buffers(schedule: NoiseSchedule) -> dict[str, Tensor]:
    """The tables of the diffusion process a checkpoint carries (Ho et al., 2020), float32."""
    betas, cumulative = schedule.betas, schedule.alphas_cumprod
    previous = torch.cat([torch.ones(1, dtype=torch.float64), cumulative[:-1]])
    variance = betas * (1 - previous) / (1 - cumulative)
    tables = {
        "betas": betas,
        "alphas_cumprod": cumulative,
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": cumulative.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - cumulative).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - cumulative).log(),
        "sqrt_recip_alphas_cumprod": (1 / cumulative).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / cumulative - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * previous.sqrt() / (1 - cumulative),
        "posterior_mean_coef2": (1 - previous) * (1 - betas).sqrt() / (1 - cumulative),
    }
    return {name: table.float() for name, table in tables.items()}


def _drawn(key: str, shape: torch.Size, seed: int) -> Tensor:
    noise = _noise(key, shape, "weight", seed)
    is_gain = len(shape) == 1 and key.endswith("weight")
    return 1 + noise if is_gain else noise


def _noise(key: str, shape: torch.Size, purpose: str, seed: int) -> Tensor:
    """Uniform numbers with the spread of the weight they belong to."""
    if "embedding." in key:  # rows of a codebook or of a class embedder, as far apart as latents
        bound = 3**0.5
    elif len(shape) == 1:
        bound = 0.1
    else:
        bound = shape[1:].numel() ** -0.5
    source = generator("stand-in", purpose, key, seed)
    return torch.empty(shape).uniform_(-bound, bound, generator=source)


def _wrapped(state: dict[str, Tensor], callback: type) -> dict[str, Any]:
    """The dictionary Lightning saves."""
    ordered = OrderedDict(state)
    ordered.__dict__["_metadata"] = OrderedDict({"": {"version": 1}})  # as a module's own has it
    moments = {"step": 1, "exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "params": [0]}
    best = {
        "monitor": "val/loss_simple_ema",
        "best_model_score": torch.tensor(0.1),
        "best_model_path": "checkpoints/epoch=000001.ckpt",
        "current_score": torch.tensor(0.1),
        "dirpath": "checkpoints",
    }
    return {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": LIGHTNING,
        "state_dict": ordered,
        "callbacks": {callback: best},
        "optimizer_states": [{"state": {0: moments}, "param_groups": [group]}],
        "lr_schedulers": [{"last_epoch": 2, "_last_lr": [np.float64(1e-4)]}],
    }


def _save(state: dict[str, Tensor], path: Path, legacy: bool) -> None:
    with _lightning_class() as callback, path.open("wb") as handle:
        # An open file, not its name: torch would write the name of the temporary file into it.
        torch.save(_wrapped(state, callback), handle, _use_new_zipfile_serialization=not legacy)


@contextlib.contextmanager
def _lightning_class() -> Iterator[type]:
    """An empty class that is saved under the name of Lightning's callback.

    A class is saved as the name of its module and its own, both of which must be importable at that
    moment; Lightning itself need not be installed.
    """
    module, name = CALLBACK
    parts = module.split(".")
    names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    found = {each: sys.modules.get(each) for each in names}
    sys.modules.update({each: ModuleType(each) for each in names})
    callback = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, callback)
    try:
        yield callback
    finally:
        for each, before in found.items():
            if before is None:
                del sys.modules[each]
            else:
                sys.modules[each] = before


def _pack(bare: Path, target: Path) -> None:
    entry = zipfile.ZipInfo(MEMBER, MEMBER_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.file_size = bare.stat().st_size
    with (
        zipfile.ZipFile(target, "w", compresslevel=1) as archive,
        bare.open("rb") as source,
        archive.open(entry, "w") as sink,
    ):
        while block := source.read(2**24):
            sink.write(block)
