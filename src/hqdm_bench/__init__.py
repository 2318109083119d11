"""HQ-DM Bench: reproducibility suite for low-bit latent diffusion models."""

__version__ = "0.1.0"
