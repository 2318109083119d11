"""Learned equivalent scaling with adaptive timestep weights: DMQ (ICCV 2025, arXiv 2507.12933).

tau of a layer minimises lambda_t |op(X, W) - op(Q(X / tau), Q(tau W))|^2 with ranges that follow
the data (dynamic), so that tau alone decides. lambda_t = (1 - L_t / sum L)^alpha with L_t a moving
average of the loss at the step, so that the early denoising steps, whose losses are small, count.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.equivalent_scaling import (
    channel_axis,
    divide_input,
    multiply_weight,
)
from hqdm_bench.quantization.reference import clip, round_straight_through

__all__ = [
    "ScalingSettings",
    "TimestepWeights",
    "dynamic_fake_quantize",
    "learn_scaling",
    "sample_losses",
    "scaled_output",
]

SMALLEST_STEP = 1e-8


@dataclass(frozen=True)
class ScalingSettings:
    """How tau is learned; the defaults are those of the released script for ImageNet.

    Attributes:
        iterations: updates (churches: 4000).
        batch: samples an update.
        learning_rate: of Adam, falling to 0 along a cosine.
        alpha: exponent of the timestep weights (churches: 25); 0 weighs all alike.
        momentum: of the moving averages L_t.
    """

    iterations: int = 6000
    batch: int = 32
    learning_rate: float = 1e-3
    alpha: float = 20.0
    momentum: float = 0.95


class TimestepWeights:
    """lambda_t = (1 - L_t / sum_t' L_t')^alpha, L_t starting at 0.

    As released: L <- m L + (1 - m) times the SUM of the batch's losses at the step, so a step drawn
    more often weighs less, and the update comes before the weights are taken. The released code has
    20 bins of 50 timesteps; here a bin is a row of the step table, the same for its 20 steps.

    Args:
        steps: S.
        alpha: exponent.
        momentum: m.
    """

    def __init__(self, steps: int, alpha: float = 20.0, momentum: float = 0.95) -> None:
        self.alpha = alpha
        self.momentum = momentum
        self.averages = torch.zeros(steps)

    @torch.no_grad()
    def __call__(self, losses: Tensor, rows: Tensor) -> Tensor:
        """Take a batch's losses in and return its weights.

        Args:
            losses: (B,) of the samples.
            rows: (B,) int64 step of each.

        Returns:
            (B,) lambda, without gradient.
        """
        self.averages = self.averages.to(losses)
        # On the CPU: a GPU adds what falls into one row in an order of its own.
        sums = torch.zeros(len(self.averages), dtype=losses.dtype)
        sums = sums.scatter_add(0, rows.cpu(), losses.detach().cpu()).to(losses)
        self.averages = self.averages * self.momentum + sums * (1 - self.momentum)
        total = self.averages.sum()
        # No error at all, or one step alone, whose share would leave it no weight: all count alike.
        weighed = total > 0 and len(self.averages) > 1
        share = self.averages[rows] / total if weighed else torch.zeros_like(losses)
        return (1 - share) ** self.alpha


def dynamic_fake_quantize(x: Tensor, bits: int, per_channel: bool) -> Tensor:
    """Round to the asymmetric grid of x's own range; gradients go through the range, too.

    The step is (max - min) / (2^b - 1) and z = round(-min / step); zero is not forced into the
    range. As released, z of a weight's channel is clipped to 0 .. 2^b - 1, that of an input is not.

    Args:
        x: a weight, whose first axis is the channel, or an input.
        bits: b.
        per_channel: one grid for each row (weight), else one for the tensor (input).
    """
    axes = tuple(range(1 if per_channel else 0, x.dim()))
    low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    largest = 2**bits - 1
    step = ((high - low) / largest).clamp(min=SMALLEST_STEP)
    zero = (-low / step).detach().round()
    if per_channel:
        zero = zero.clamp(0, largest)
    codes = clip(round_straight_through(x / step) + zero, 0, largest)
    return (codes - zero) * step


def scaled_output(
    operate: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    weight: Tensor,
    tau: Tensor,
    bits: tuple[int, int],
    axis: int,
) -> Tensor:
    """op(Q(X / tau), Q(tau W)).

    Args:
        operate: the layer as a function of input and weight.
        x: input.
        weight: (c_out, c_in, ...).
        tau: (c_in,).
        bits: of weight and input.
        axis: of the channels in x.
    """
    x_hat = dynamic_fake_quantize(divide_input(x, tau, axis), bits[1], per_channel=False)
    w_hat = dynamic_fake_quantize(multiply_weight(weight, tau), bits[0], per_channel=True)
    return operate(x_hat, w_hat)


def sample_losses(found: Tensor, target: Tensor) -> Tensor:
    """(B,) squared errors, summed over the second axis and averaged over those after it.

    The second axis is the channel of a convolution and the token of a transformer's linear layer,
    as in the released code; between layers that is a constant factor.
    """
    summed = (found - target).square().sum(1)
    return summed.flatten(1).mean(1) if summed.dim() > 1 else summed


def learn_scaling(
    source: nn.Conv1d | nn.Conv2d | nn.Linear,
    inputs: Tensor,
    rows: Tensor,
    steps: int,
    bits: tuple[int, int],
    settings: ScalingSettings,
    random: torch.Generator,
    weight: Tensor | None = None,
) -> Tensor:
    """Learn tau of one layer.

    Args:
        source: the full-precision layer.
        inputs: (N, ...) its inputs in the full-precision model.
        rows: (N,) int64 step of each.
        steps: S.
        bits: of weight and input.
        settings: of the optimisation.
        random: draws the batches (CPU).
        weight: of a part of the layer, whose inputs are given; None for the layer's.

    Returns:
        (c_in,) tau, which started at 1. It is a plain parameter; that it stays positive is not
        enforced, as released.

    Raises:
        BenchError: a layer whose channels cannot be scaled, or inputs and rows that do not fit.
    """
    axis = channel_axis(source)
    if len(inputs) != len(rows) or not len(inputs):
        raise BenchError(f"got {len(inputs)} inputs and {len(rows)} steps to learn a scaling from")
    weight = source.weight.detach() if weight is None else weight

    def operate(x: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(source, {"weight": w}, (x,))

    tau = torch.ones(weight.shape[1]).to(weight).requires_grad_()
    optimiser = torch.optim.Adam([tau], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.iterations)
    weights = TimestepWeights(steps, settings.alpha, settings.momentum)
    for _ in range(settings.iterations):
        chosen = torch.randperm(len(inputs), generator=random)[: settings.batch]
        x, row = inputs[chosen].to(weight), rows[chosen].to(weight.device)
        with torch.no_grad():
            target = operate(x, weight)
        losses = sample_losses(scaled_output(operate, x, weight, tau, bits, axis), target)
        loss = (weights(losses, row) * losses).mean()
        (tau.grad,) = torch.autograd.grad(loss, [tau])
        optimiser.step()
        schedule.step()
    return tau.detach()
