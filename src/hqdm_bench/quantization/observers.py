"""Activation ranges from batches: extremes, their moving average, or a mean-error search.

An observer sees the inputs of one quantizer at one step, batch after batch, and then stores the
grid it finds: one for all, or one for each input channel if the quantizer has them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.quantization.activation import ActivationQuantizer
from hqdm_bench.quantization.channel_step import ChannelStep
from hqdm_bench.quantization.grid import SMALLEST_SCALE, Grid

__all__ = [
    "SAMPLE",
    "EmaObserver",
    "MakeObserver",
    "MinMaxObserver",
    "MseObserver",
    "Observer",
    "observer_for",
    "range_grid",
    "symmetric_range_scale",
    "thin",
]

SAMPLE = 8192  # values of an input that a search looks at
CHANNEL_SAMPLE = 256  # at least this many of each channel where it has its own grid


def thin(x: Tensor, sample: int) -> Tensor:
    """At most ``sample`` values at an even stride.

    The stride is odd: tensor sizes are products of small powers of two, and an even stride would
    see only some of the channels or positions.
    """
    flat = x.flatten()
    stride = -(-len(flat) // sample)
    return flat[:: stride + 1 - stride % 2] if stride > 1 else flat


def range_grid(low: Tensor, high: Tensor, bits: int) -> Grid:
    """Asymmetric grid over [low, high]: step (high - low) / (2^b - 1), z = round(-low / step).

    Args:
        low: 0-d or (c_in,); zero is not forced into the range.
        high: likewise.
        bits: b.
    """
    scale = ((high.double() - low.double()) / (2**bits - 1)).clamp(min=SMALLEST_SCALE)
    return Grid(scale.to(low.dtype), (-low / scale).round().to(low.dtype))


def symmetric_range_scale(low: Tensor, high: Tensor, limit: int) -> Tensor:
    """0-d step max(|low|, |high|) / limit of a symmetric grid.

    Args:
        low: 0-d.
        high: 0-d.
        limit: largest code.
    """
    return (torch.maximum(low.abs(), high.abs()) / limit).clamp(min=SMALLEST_SCALE)


class Observer(ABC):
    """Sees batches, then stores a grid.

    Attributes:
        by_channel: batches are (n, c_in) and every channel has a grid of its own.
    """

    by_channel = False

    @abstractmethod
    def observe(self, x: Tensor) -> None:
        """Take in a batch, as the quantizer sees it."""

    @abstractmethod
    def store(self, quantizer: ActivationQuantizer, step: int | None = None) -> None:
        """Set a row of a quantizer, or all rows if ``step`` is None.

        Raises:
            BenchError: nothing was observed.
        """


MakeObserver = Callable[[], Observer]


def observer_for(quantizer: ActivationQuantizer, make: MakeObserver) -> Observer:
    """A new observer of a quantizer's inputs."""
    observer = make()
    observer.by_channel = isinstance(quantizer, ChannelStep)
    return observer


class MseObserver(Observer):
    """The quantizer's own mean-error search (`ActivationQuantizer.calibrate`) over all batches.

    Args:
        sample: values kept of a batch; by channel this share of it, but 256 of each.
    """

    def __init__(self, sample: int = SAMPLE) -> None:
        self.sample = sample
        self.kept: list[Tensor] = []

    def observe(self, x: Tensor) -> None:
        """Keep at most ``sample`` values."""
        x = x.detach()
        if self.by_channel:
            keep = max(CHANNEL_SAMPLE, self.sample // x.shape[1])
            self.kept.append(x[thin(torch.arange(len(x), device=x.device), keep)])
        else:
            self.kept.append(thin(x, self.sample))

    def store(self, quantizer: ActivationQuantizer, step: int | None = None) -> None:
        """Search and store."""
        if not self.kept:
            raise BenchError("an observer has to see a batch before it can set a range")
        quantizer.calibrate(torch.cat(self.kept), step)


class MinMaxObserver(Observer):
    """The range of all batches.

    Args:
        include_zero: widen the range to zero.
    """

    def __init__(self, *, include_zero: bool = True) -> None:
        self.include_zero = include_zero
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def observe(self, x: Tensor) -> None:
        """Take in the extremes."""
        low, high = _extremes(x, self.by_channel)
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        else:
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)

    @property
    def range(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest value.

        Raises:
            BenchError: nothing was observed.
        """
        if self.low is None or self.high is None:
            raise BenchError("an observer has to see a batch before it can set a range")
        if self.include_zero:
            return self.low.clamp(max=0), self.high.clamp(min=0)
        return self.low, self.high

    def store(self, quantizer: ActivationQuantizer, step: int | None = None) -> None:
        """Store the grid over the range, symmetric if the quantizer is."""
        if quantizer.zero is None:
            scale = symmetric_range_scale(*self.range, quantizer.limits[1])
            quantizer.initialise(scale, step=step)
            return
        grid = range_grid(*self.range, quantizer.bits)
        quantizer.initialise(grid.scale, grid.zero, step)


class EmaObserver(MinMaxObserver):
    """Moving averages of the batches' extremes: m * old + (1 - m) * new, from the first batch on.

    As Q-Diffusion, TFMQ-DM and DMQ release it; of these only TFMQ-DM widens the range to zero.

    Args:
        momentum: m.
        include_zero: widen the range to zero.
        shuffled: average the batches in a random order, the same one every time. TFMQ-DM's and
            DMQ's codes shuffle, too; Q-Diffusion's takes the batches in the order of their
            timesteps, which leaves the last of them to decide.
    """

    def __init__(
        self, momentum: float = 0.95, *, include_zero: bool = False, shuffled: bool = False
    ) -> None:
        super().__init__(include_zero=include_zero)
        self.momentum = momentum
        self.shuffled = shuffled
        self.extremes: list[tuple[Tensor, Tensor]] = []

    def observe(self, x: Tensor) -> None:
        """Keep the extremes."""
        self.extremes.append(_extremes(x, self.by_channel))

    @property
    def range(self) -> tuple[Tensor, Tensor]:
        """The averages.

        Raises:
            BenchError: nothing was observed.
        """
        order = torch.arange(len(self.extremes))
        if self.shuffled:
            order = torch.randperm(len(order), generator=generator("moving-average", 0))
        self.low = self.high = None
        for low, high in (self.extremes[place] for place in order.tolist()):
            if self.low is None or self.high is None:
                self.low, self.high = low, high
                continue
            self.low = self.low * self.momentum + low * (1 - self.momentum)
            self.high = self.high * self.momentum + high * (1 - self.momentum)
        return super().range


def _extremes(x: Tensor, by_channel: bool) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of a batch, or of each column of one."""
    extremes = x.detach().aminmax(dim=0) if by_channel else x.detach().aminmax()
    low, high = (extreme.clone() for extreme in extremes)
    if not bool((low.isfinite() & high.isfinite()).all()):
        raise BenchError("cannot observe a range in data with NaN or infinite values")
    return low, high
