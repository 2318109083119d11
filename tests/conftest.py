"""Fixtures of several packages: a toy teacher that reacts to everything, and a recipe for it."""

import copy

import pytest
import torch

from hqdm_bench.catalogue import ModelSpec, PostTraining, Recipe, Scale
from hqdm_bench.models import LatentDiffusion, build_latent_diffusion

UNET = {
    "image_size": 4,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 32,
    "attention_resolutions": [1],
    "num_res_blocks": 1,
    "channel_mult": [1],
    "num_heads": 1,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    # Without it the norm of one channel a group removes whatever a time projection adds.
    "use_scale_shift_norm": True,
    "context_dim": 16,
}
FIRST_STAGE = {
    "kind": "vq",
    "embed_dim": 3,
    "n_embed": 8,
    "ddconfig": {
        "double_z": False,
        "z_channels": 3,
        "resolution": 8,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}


@pytest.fixture(scope="session")
def shared_toy() -> LatentDiffusion:
    """A class-conditional toy; its zero-initialised convolutions are drawn, so all reacts."""
    spec = ModelSpec(
        name="toy",
        title="Toy",
        paper_dataset="imagenet",
        source="embedded",
        unet=UNET,
        first_stage=FIRST_STAGE,
        condition={"n_classes": 4, "embed_dim": 16},
        scale_factor=1.0,
        beta_start=0.0015,
        beta_end=0.0195,
    )
    model = build_latent_diffusion(spec, seed=1).eval()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.unet.parameters():
            if parameter.dim() > 1 and not parameter.any():
                bound = parameter[0].numel() ** -0.5
                parameter.uniform_(-bound, bound, generator=random)
    return model


@pytest.fixture
def teacher(shared_toy: LatentDiffusion) -> LatentDiffusion:
    return copy.deepcopy(shared_toy)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(
        name="toy",
        steps=4,
        trajectories=2,
        pool=2,
        batch=2,
        eta=1.0,
        guidance=1.5,
        seed=3,
        lora_rank=4,
        lora_lr_divisor=50,
        weight_scale_lr=1e-6,
        activation_lr=5e-4,
        weight_decay=0.01,
        calibration="per_step",
        calibration_images=4,
        validation_trajectories=1,
        post_training=PostTraining(
            steps=4, eta=0.0, guidance=1.5, scale=Scale(updates=0.0005, rates=10, data=0.02)
        ),
    )
