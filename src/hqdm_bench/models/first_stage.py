"""First stages: images to latents and back, with a codebook (VQ) or a Gaussian latent (KL)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.autoencoder import AutoencoderConfig, Decoder, Encoder

__all__ = ["KLFirstStage", "Moments", "Quantized", "VQFirstStage", "build_first_stage"]

ROWS_AT_ONCE = 4096  # bounds the (rows, codes) distance table at 128 MiB for 8192 codes
LOG_VARIANCE_RANGE = (-30.0, 20.0)


class Quantized(NamedTuple):
    """Result of a codebook look-up.

    Attributes:
        z: (B, C, h, w) nearest codes; its gradient passes straight through to the input.
        indices: (B, h, w) int64, rows of the codebook.
        codebook_loss: mean of (code - sg[z])^2, moves the codes.
        commitment_loss: mean of (sg[code] - z)^2, moves the encoder.
    """

    z: Tensor
    indices: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class Codebook(nn.Module):
    """Nearest-neighbour vector quantization (van den Oord et al., 2017)."""

    def __init__(self, n_embed: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_embed, 1 / n_embed)

    def nearest(self, z: Tensor) -> Tensor:
        """Indices (B, h, w) of the codes nearest to z (B, C, h, w).

        Distances are |z|^2 + |e|^2 - 2 z.e, rounding included, so that near-ties fall as in the
        published models.
        """
        codes = self.embedding.weight.detach()
        norms = codes.square().sum(dim=1)
        rows = z.detach().permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
        found = [
            torch.argmin(part.square().sum(dim=1, keepdim=True) + norms - 2 * part @ codes.T, dim=1)
            for part in rows.split(ROWS_AT_ONCE)
        ]
        return torch.cat(found).reshape(z.shape[0], *z.shape[2:])

    def lookup(self, indices: Tensor) -> Tensor:
        """Codes (B, C, h, w) of indices (B, h, w)."""
        return self.embedding(indices).permute(0, 3, 1, 2)

    def forward(self, z: Tensor) -> Quantized:
        """Quantize z (B, C, h, w)."""
        indices = self.nearest(z)
        codes = self.lookup(indices)
        codebook_loss = (codes - z.detach()).square().mean()
        commitment_loss = (codes.detach() - z).square().mean()
        # z + (codes - z) is not exactly codes in floating point: only training pays that rounding.
        passed = z + (codes - z).detach() if z.requires_grad else codes.detach()
        return Quantized(passed, indices, codebook_loss, commitment_loss)


class VQFirstStage(nn.Module):
    """First stage with a codebook (VQ-f4 of the LDM-4 models).

    Args:
        embed_dim: channels of the latent.
        n_embed: codes.
        ddconfig: encoder and decoder, CompVis' keys.

    Raises:
        BenchError: a key of ``ddconfig`` is unknown, missing or not supported.
    """

    def __init__(self, embed_dim: int, n_embed: int, ddconfig: Mapping[str, Any]) -> None:
        super().__init__()
        config = AutoencoderConfig.from_ddconfig(ddconfig)
        if config.double_z:
            raise BenchError("ddconfig.double_z is true; a VQ first stage has one latent")
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(n_embed, embed_dim)
        self.quant_conv = nn.Conv2d(config.z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, config.z_channels, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, C, h, w), not yet quantized, of images (B, 3, H, W) in [-1, 1]."""
        return self.quant_conv(self.encoder(images))

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W) of latents (B, C, h, w), which are quantized first."""
        return self.decode_codes(self.quantize(z).z)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of latents (B, C, h, w) that are rows of the codebook already."""
        return self.decoder(self.post_quant_conv(codes))


class Moments(NamedTuple):
    """A diagonal Gaussian over latents; mean and log variance (B, C, h, w)."""

    mean: Tensor
    log_variance: Tensor


class KLFirstStage(nn.Module):
    """First stage with a Gaussian latent (KL-f8 of the LDM-8 model).

    Args:
        embed_dim: channels of the latent.
        ddconfig: encoder and decoder, CompVis' keys, with ``double_z``.

    Raises:
        BenchError: a key of ``ddconfig`` is unknown, missing or not supported.
    """

    def __init__(self, embed_dim: int, ddconfig: Mapping[str, Any]) -> None:
        super().__init__()
        config = AutoencoderConfig.from_ddconfig(ddconfig)
        if not config.double_z:
            raise BenchError("ddconfig.double_z is false; a KL first stage needs mean and variance")
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, config.z_channels, 1)

    def moments(self, images: Tensor) -> Moments:
        """Posterior of images (B, 3, H, W) in [-1, 1]; the log variance is clamped to [-30, 20]."""
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return Moments(mean, log_variance.clamp(*LOG_VARIANCE_RANGE))

    def encode(self, images: Tensor) -> Tensor:
        """Mean latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1]."""
        return self.moments(images).mean

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W) of latents (B, C, h, w)."""
        return self.decoder(self.post_quant_conv(z))


def build_first_stage(spec: Mapping[str, Any]) -> VQFirstStage | KLFirstStage:
    """First stage of a catalogue entry: ``kind``, ``embed_dim``, ``n_embed`` (vq), ``ddconfig``.

    Raises:
        BenchError: the kind is unknown, or a key is missing.
    """
    needed = {"vq": ("embed_dim", "n_embed", "ddconfig"), "kl": ("embed_dim", "ddconfig")}
    kind = spec.get("kind")
    if kind not in needed:
        raise BenchError(f"first_stage.kind is {kind!r}; allowed: kl, vq")
    if missing := [key for key in needed[kind] if key not in spec]:
        raise BenchError(f"first_stage lacks the key(s) {', '.join(missing)}")
    if kind == "vq":
        return VQFirstStage(spec["embed_dim"], spec["n_embed"], spec["ddconfig"])
    return KLFirstStage(spec["embed_dim"], spec["ddconfig"])
