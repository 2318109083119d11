"""Latent diffusion models under CompVis' layer names, and the DDIM sampler."""

from hqdm_bench.models.attention import AttentionBlock, SpatialTransformer
from hqdm_bench.models.checkpoint import load_latent_diffusion, save_latent_diffusion
from hqdm_bench.models.embedder import ClassEmbedder, timestep_embedding
from hqdm_bench.models.first_stage import (
    KLFirstStage,
    Moments,
    Quantized,
    VQFirstStage,
    build_first_stage,
)
from hqdm_bench.models.latent_diffusion import LatentDiffusion, build_latent_diffusion, guide
from hqdm_bench.models.outlier_channels import add_outlier_channels
from hqdm_bench.models.precision import at_precision
from hqdm_bench.models.resblock import Downsample, ResBlock, Upsample
from hqdm_bench.models.schedule import DDIM, TRAINING_STEPS, NoiseSchedule
from hqdm_bench.models.unet import UNet
from hqdm_bench.models.unet_config import UNetConfig

__all__ = [
    "DDIM",
    "TRAINING_STEPS",
    "AttentionBlock",
    "ClassEmbedder",
    "Downsample",
    "KLFirstStage",
    "LatentDiffusion",
    "Moments",
    "NoiseSchedule",
    "Quantized",
    "ResBlock",
    "SpatialTransformer",
    "UNet",
    "UNetConfig",
    "Upsample",
    "VQFirstStage",
    "add_outlier_channels",
    "at_precision",
    "build_first_stage",
    "build_latent_diffusion",
    "guide",
    "load_latent_diffusion",
    "save_latent_diffusion",
    "timestep_embedding",
]
