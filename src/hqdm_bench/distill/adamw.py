"""AdamW (Loshchilov and Hutter, ICLR 2019) for many small tensors with a rate each.

The arithmetic is that of ``torch.optim.AdamW``. That class takes one rate a group and would need a
group for every layer; here all tensors go through each operation together. It also loads PyTorch's
compiler when it is built, which takes longer than a tenth of a small training.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["AdamW"]


class AdamW:
    """Optimise parameter groups; betas 0.9 and 0.999, eps 1e-8.

    Every parameter needs a gradient at every step, so one step count serves all.

    Parameters that share a storage with an earlier one are updated after it, on top of its update,
    as separate groups of ``torch.optim.AdamW`` would be.

    Args:
        groups: dictionaries with ``params``, ``lr`` and ``weight_decay``.
    """

    BETAS = (0.9, 0.999)
    EPS = 1e-8

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self.steps = 0
        self.rates: list[float] = []
        self.decays: list[float] = []
        self.parameters: list[Tensor] = []
        for group in groups:
            self.parameters += group["params"]
            self.rates += [group["lr"]] * len(group["params"])
            self.decays += [group["weight_decay"]] * len(group["params"])
        self.mean = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.mean_square = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._passes = _passes(self.parameters)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """Update every parameter; ``factor`` scales all rates."""
        self.steps += 1
        for members in self._passes:
            self._update(members, factor)

    def _update(self, members: Sequence[int], factor: float) -> None:
        rates = [self.rates[i] * factor for i in members]
        parameters = [self.parameters[i] for i in members]
        gradients = [_gradient(parameter) for parameter in parameters]
        means = [self.mean[i] for i in members]
        squares = [self.mean_square[i] for i in members]
        shrink = [1 - rate * self.decays[i] for rate, i in zip(rates, members, strict=True)]
        first, second = self.BETAS
        torch._foreach_mul_(parameters, shrink)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        spread = torch._foreach_sqrt(squares)
        torch._foreach_div_(spread, math.sqrt(1 - second**self.steps))
        torch._foreach_add_(spread, self.EPS)
        correction = 1 - first**self.steps
        torch._foreach_addcdiv_(parameters, means, spread, [-rate / correction for rate in rates])


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _passes(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Indices in rounds without a repeated storage, each in the given order."""
    passes: list[list[int]] = []
    seen: dict[int, int] = {}
    for index, parameter in enumerate(parameters):
        turn = seen.get(parameter.data_ptr(), 0)
        seen[parameter.data_ptr()] = turn + 1
        if turn == len(passes):
            passes.append([])
        passes[turn].append(index)
    return passes
