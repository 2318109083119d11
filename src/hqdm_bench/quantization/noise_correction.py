"""Correction of quantization noise in the sampler: PTQD (He et al., NeurIPS 2023, 2305.10657).

The error of a quantized noise prediction, D = eps_q - eps, is written as k eps + residual, with one
k a step. The sampler then takes (eps_q - bias) / (1 + k) for eps_q and adds less noise of its own,
because the residual is noise already. Both predictions are the guided ones.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models import DDIM
from hqdm_bench.quantization.noise_error import NoiseError

__all__ = ["NoiseCorrection", "error_noise_gain", "reduced_sigmas"]

Bias = Literal["error", "residual"]
Direction = Literal["follows", "kept"]


def error_noise_gain(ddim: DDIM) -> Tensor:
    """(S,) factor c that an error of the prediction has in the next latents of a DDIM step.

    c = sqrt(1 - a_prev - sigma^2) - sqrt(a_prev (1 - a) / a).
    """
    direction = (1 - ddim.alphas_prev - ddim.sigmas**2).clamp(min=0).sqrt()
    return direction - (ddim.alphas_prev * (1 - ddim.alphas) / ddim.alphas).sqrt()


def reduced_sigmas(ddim: DDIM, residual_std: Tensor) -> Tensor:
    """(S,) standard deviations sigma' of the noise to add, sigma'^2 = max(0, sigma^2 - c^2 s^2).

    Nothing is left to reduce where sigma is 0, so the result at eta = 0 is 0.

    Args:
        ddim: the sampler's constants.
        residual_std: (S,) standard deviation s of the corrected prediction's residual error.
    """
    spent = (error_noise_gain(ddim) * residual_std.to(ddim.sigmas)).square()
    return (ddim.sigmas.square() - spent).clamp(min=0).sqrt()


class NoiseCorrection(nn.Module):
    """Tables of the correction, found by the timestep; entries are NaN until they are set.

    Args:
        timesteps: of the rows, strictly ascending.
        channels: of the noise prediction.
        bias: what is taken off each channel before the division by 1 + k: the mean of the whole
            ``error`` D (released code) or of the ``residual`` D - k eps (the paper's text, which
            divides first and then removes the residual's mean: the same difference over 1 + k).
        direction: with less noise of its own, DDIM's direction term sqrt(1 - a_prev - sigma^2) is
            taken with sigma' (``follows``, released code), so that the variance of the latents is
            made up for by the prediction, or stays as it was (``kept``, the paper's text, which
            changes the noise alone).
    """

    slope: Tensor
    offset: Tensor
    residual_std: Tensor

    def __init__(
        self,
        timesteps: Sequence[int],
        channels: int,
        *,
        bias: Bias = "error",
        direction: Direction = "follows",
    ) -> None:
        super().__init__()
        self.timesteps = tuple(int(t) for t in timesteps)
        self.bias = bias
        self.direction = direction
        self._rows = {t: row for row, t in enumerate(self.timesteps)}
        steps = len(self.timesteps)
        self.register_buffer("slope", torch.full((steps,), math.nan))
        self.register_buffer("offset", torch.full((steps, channels), math.nan))
        self.register_buffer("residual_std", torch.full((steps,), math.nan))

    def settings(self) -> dict[str, Any]:
        """Arguments that build it again, empty."""
        return {
            "timesteps": list(self.timesteps),
            "channels": self.offset.shape[1],
            "bias": self.bias,
            "direction": self.direction,
        }

    @property
    def calibrated(self) -> bool:
        """Whether every entry is set."""
        return all(bool(table.isfinite().all()) for table in self.buffers())

    @torch.no_grad()
    def fit(self, errors: Mapping[int, NoiseError]) -> None:
        """Set every row from the errors measured at its timestep.

        A negative k counts as 0, as in the released code.

        Args:
            errors: by timestep; timesteps without a row are left out.

        Raises:
            BenchError: a timestep has no measurements.
        """
        missing = [t for t in self.timesteps if t not in errors]
        if missing:
            raise BenchError(
                f"no errors of the noise prediction were measured at timestep "
                f"{', '.join(map(str, missing))}; run both models there"
            )
        for row, t in enumerate(self.timesteps):
            slope = max(0.0, errors[t].slope)
            mean, exact = errors[t].channel_error, errors[t].channel_exact
            self.slope[row] = slope
            self.offset[row] = mean if self.bias == "error" else mean - slope * exact
            self.residual_std[row] = errors[t].residual_std(slope) / (1 + slope)

    def correct(self, prediction: Tensor, t: int) -> Tensor:
        """(eps_q - bias) / (1 + k) at timestep t.

        Args:
            prediction: guided, (B, C, h, w).
            t: of all rows of the batch.

        Raises:
            BenchError: the tables have no row for t.
        """
        if t not in self._rows:
            raise BenchError(
                f"the noise correction has no row for timestep {t} (it has {self.timesteps[0]} to "
                f"{self.timesteps[-1]}); measure it with the step count that you sample with"
            )
        row = self._rows[t]
        offset = self.offset[row].to(prediction).view(1, -1, *[1] * (prediction.dim() - 2))
        return (prediction - offset) / (1 + self.slope[row].to(prediction))

    def schedule(self, ddim: DDIM) -> DDIM:
        """The sampler's constants with less noise, see `reduced_sigmas`.

        Args:
            ddim: its timesteps must be those of the tables.

        Raises:
            BenchError: other timesteps.
        """
        if tuple(ddim.timesteps.tolist()) != self.timesteps:
            raise BenchError(
                f"the noise correction was measured at {len(self.timesteps)} timesteps and the "
                f"sampler takes {ddim.steps}, or other ones; measure it with the sampler's"
            )
        sigmas = reduced_sigmas(ddim, self.residual_std.detach().cpu().double())
        if self.direction == "kept":
            return dataclasses.replace(ddim, added_sigmas=sigmas)
        return dataclasses.replace(ddim, sigmas=sigmas)

    def extra_repr(self) -> str:
        """Shown by print()."""
        return f"steps={len(self.timesteps)}, bias={self.bias}, direction={self.direction}"
