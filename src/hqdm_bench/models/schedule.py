"""The noise schedule and the DDIM sampler built on it."""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError

__all__ = ["DDIM", "TRAINING_STEPS", "NoiseSchedule"]

TRAINING_STEPS = 1000


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Variances of the forward process, linear in the square root (Rombach et al., 2022).

    Attributes:
        beta_start: first variance.
        beta_end: last variance.
        betas: (1000,) float64.
        alphas_cumprod: (1000,) float64, the share of signal variance left at each t.
    """

    beta_start: float
    beta_end: float
    betas: Tensor = field(init=False, repr=False)
    alphas_cumprod: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        roots = torch.linspace(
            self.beta_start**0.5,
            self.beta_end**0.5,
            TRAINING_STEPS,
            dtype=torch.float64,
            device="cpu",  # the tables stay here, also while a model is built on the meta device
        )
        object.__setattr__(self, "betas", roots.square())
        object.__setattr__(self, "alphas_cumprod", torch.cumprod(1 - self.betas, dim=0))

    def add_noise(self, x: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Draw x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al., 2020, equation 4).

        Args:
            x: clean latents (B, C, h, w).
            noise: standard normal, same shape.
            timesteps: (B,) integer.
        """
        share = self.alphas_cumprod.to(timesteps.device)[timesteps][:, None, None, None]
        return share.sqrt().to(x.dtype) * x + (1 - share).sqrt().to(x.dtype) * noise


@dataclass(frozen=True, eq=False)
class DDIM:
    """DDIM over a subset of the timesteps (Song et al., 2021), with CompVis' constants.

    All tables run along ascending t: index 0 is the last denoising step (t = 1), index S-1 the
    first. They are float64; the cumulative alphas were rounded to float32 once, because the
    published models were sampled with those.

    Attributes:
        eta: noise share; 0 is deterministic.
        timesteps: (S,) int64, 1, 1 + 1000/S, ...
        alphas: (S,) cumulative alpha of each step.
        alphas_prev: (S,) that of the step after it; for index 0 the schedule's first value, not 1.
        sigmas: (S,) standard deviation of the noise added back.
        sqrt_one_minus_alphas: (S,).
        added_sigmas: (S,) standard deviation of the noise really added where it is not that of the
            direction term (a sampler that is corrected for the noise in the predictions), or None.
    """

    eta: float
    timesteps: Tensor
    alphas: Tensor
    alphas_prev: Tensor
    sigmas: Tensor
    sqrt_one_minus_alphas: Tensor
    added_sigmas: Tensor | None = None

    @classmethod
    def from_schedule(cls, schedule: NoiseSchedule, steps: int, eta: float) -> Self:
        """Constants of ``steps`` uniform steps.

        Raises:
            BenchError: ``steps`` is not a divisor of 1000 below 1000.
        """
        _check_steps(steps)
        cumulative = schedule.alphas_cumprod.float().double()
        timesteps = torch.arange(0, TRAINING_STEPS, TRAINING_STEPS // steps) + 1
        alphas = cumulative[timesteps]
        previous = torch.cat([cumulative[:1], alphas[:-1]])
        sigmas = eta * torch.sqrt((1 - previous) / (1 - alphas) * (1 - alphas / previous))
        return cls(eta, timesteps, alphas, previous, sigmas, torch.sqrt(1 - alphas))

    @property
    def steps(self) -> int:
        """Number of steps S."""
        return len(self.timesteps)

    def step(self, x: Tensor, eps: Tensor, index: int, noise: Tensor | None = None) -> Tensor:
        """One denoising step (Song et al., 2021, equation 12).

        Args:
            x: latents at ``timesteps[index]``, (B, C, h, w).
            eps: predicted noise, same shape.
            index: position in the tables; S-1 is the noisiest.
            noise: standard normal, same shape; needed if eta > 0, not used otherwise.

        Returns:
            Latents at the next smaller timestep.

        Raises:
            BenchError: eta > 0 and there is no noise.
        """
        alpha, previous = float(self.alphas[index]), float(self.alphas_prev[index])
        sigma = float(self.sigmas[index])
        clean = (x - float(self.sqrt_one_minus_alphas[index]) * eps) / alpha**0.5
        result = previous**0.5 * clean + (1 - previous - sigma**2) ** 0.5 * eps
        added = sigma if self.added_sigmas is None else float(self.added_sigmas[index])
        if added == 0:
            return result
        if noise is None:
            raise BenchError(f"DDIM with eta {self.eta} adds noise at every step; none was given")
        return result + added * noise


def _check_steps(steps: int) -> None:
    if not 1 <= steps < TRAINING_STEPS:
        raise BenchError(f"{steps} DDIM steps: take a divisor of 1000 from 1 to 500")
    if TRAINING_STEPS % steps:
        real = len(range(0, TRAINING_STEPS, TRAINING_STEPS // steps))
        raise BenchError(
            f"{steps} DDIM steps do not divide 1000; CompVis' sampler would really take {real}: "
            "take a divisor of 1000"
        )
