from collections.abc import Callable
from typing import Any

import pytest
import torch

from hqdm_bench.catalogue import ModelSpec, Protocol
from hqdm_bench.models import LatentDiffusion, build_latent_diffusion

MakeProtocol = Callable[..., Protocol]


def tiny_model(classes: int | None) -> LatentDiffusion:
    """A few thousand random weights; the zero-initialised output layers get values too."""
    unet: dict[str, Any] = {
        "image_size": 4,
        "in_channels": 3,
        "out_channels": 3,
        "model_channels": 32,
        "attention_resolutions": [1],
        "num_res_blocks": 1,
        "channel_mult": [1],
        "num_heads": 1,
    }
    if classes is not None:
        unet |= {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 32}
    first_stage = {
        "kind": "vq",
        "embed_dim": 3,
        "n_embed": 16,
        "ddconfig": {
            "double_z": False,
            "z_channels": 3,
            "resolution": 8,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 32,
            "ch_mult": [1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }
    spec = ModelSpec(
        name="tiny",
        title="tiny",
        paper_dataset="imagenet",
        source="embedded",
        unet=unet,
        first_stage=first_stage,
        condition=None if classes is None else {"n_classes": classes + 1, "embed_dim": 32},
        scale_factor=1.0,
        beta_start=0.0015,
        beta_end=0.0195,
    )
    model = build_latent_diffusion(spec).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter += 0.03 * torch.randn(parameter.shape, generator=random)
    return model


@pytest.fixture(scope="session")
def conditional() -> LatentDiffusion:
    return tiny_model(3)


@pytest.fixture(scope="session")
def unconditional() -> LatentDiffusion:
    return tiny_model(None)


@pytest.fixture(scope="session")
def make_protocol() -> MakeProtocol:
    def make(**changes: Any) -> Protocol:
        values: dict[str, Any] = {
            "name": "test",
            "steps": 4,
            "eta": 0.0,
            "guidance": 1.5,
            "labels": "balanced",
            "order": "shuffled",
            "rounding": "nearest",
            "images": 11,
            "batch": 2,
            "shards": 1,
            "seed": 0,
            "reference": "scenes",
            "reference_images": 16,
            "pr_reference_images": 8,
            "extractor": "mini-classifier",
            "is_split": 11,
        }
        return Protocol(**(values | changes))

    return make
