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

    The rows of a parameter (S, ...) in a group with ``rows`` are optimised like S separate
    parameters of which all but one have no gradient: a step moves one row, by its own moments and
    its own count of steps, and leaves the others alone.

    Parameters that share a storage with an earlier one are updated after it, on top of its update,
    as separate groups of ``torch.optim.AdamW`` would be.

    Args:
        groups: dictionaries with ``params``, ``lr`` and ``weight_decay``; optional are ``rows``
            (bool, see above) and ``gradient_factor`` (gradients are multiplied by it first).

    Attributes:
        steps: steps so far.
        row_steps: (S,) int64, how often each row was in use; empty without parameters by rows.
        rates: of each parameter.
        gradient_factors: of each parameter.
    """

    BETAS = (0.9, 0.999)
    EPS = 1e-8

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        self.steps = 0
        self.rates: list[float] = []
        self.decays: list[float] = []
        self.gradient_factors: list[float] = []
        self.parameters: list[Tensor] = []
        by_row: list[bool] = []
        for group in groups:
            count = len(group["params"])
            self.parameters += group["params"]
            self.rates += [group["lr"]] * count
            self.decays += [group["weight_decay"]] * count
            self.gradient_factors += [group.get("gradient_factor", 1.0)] * count
            by_row += [group.get("rows", False)] * count
        self.mean = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.mean_square = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._passes = _passes(self.parameters, [i for i, rows in enumerate(by_row) if not rows])
        tables = [i for i, rows in enumerate(by_row) if rows]
        self._row_passes = _passes(self.parameters, tables)
        lengths = {len(self.parameters[i]) for i in tables}
        assert len(lengths) <= 1  # the rows of all are a student's steps
        self.row_steps = torch.zeros(max(lengths, default=0), dtype=torch.int64)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, factor: float = 1.0, row: int | None = None) -> None:
        """Update every parameter, of those by rows one row.

        Args:
            factor: scales all rates.
            row: the row in use; needed if there are parameters by rows.
        """
        self.steps += 1
        for members in self._passes:
            self._update(members, factor, self.steps)
        if not self._row_passes:
            return
        assert row is not None
        self.row_steps[row] += 1
        for members in self._row_passes:
            self._update(members, factor, int(self.row_steps[row]), row)

    def _update(
        self, members: Sequence[int], factor: float, steps: int, row: int | None = None
    ) -> None:
        rates = [self.rates[i] * factor for i in members]
        parameters = _rows([self.parameters[i] for i in members], row)
        gradients = _rows([_gradient(self.parameters[i]) for i in members], row)
        means = _rows([self.mean[i] for i in members], row)
        squares = _rows([self.mean_square[i] for i in members], row)
        shrink = [1 - rate * self.decays[i] for rate, i in zip(rates, members, strict=True)]
        scaling = [self.gradient_factors[i] for i in members]
        if any(scale != 1 for scale in scaling):
            gradients = list(torch._foreach_mul(gradients, scaling))
        first, second = self.BETAS
        torch._foreach_mul_(parameters, shrink)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        spread = torch._foreach_sqrt(squares)
        torch._foreach_div_(spread, math.sqrt(1 - second**steps))
        torch._foreach_add_(spread, self.EPS)
        correction = 1 - first**steps
        torch._foreach_addcdiv_(parameters, means, spread, [-rate / correction for rate in rates])


def _rows(tensors: list[Tensor], row: int | None) -> list[Tensor]:
    """One row of each tensor, a view; the tensors themselves without a row."""
    return tensors if row is None else [tensor[row] for tensor in tensors]


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _passes(parameters: Sequence[Tensor], members: Sequence[int]) -> list[list[int]]:
    """Indices in rounds without a repeated storage, each in the given order."""
    passes: list[list[int]] = []
    seen: dict[int, int] = {}
    for index in members:
        address = parameters[index].data_ptr()
        turn = seen.get(address, 0)
        seen[address] = turn + 1
        if turn == len(passes):
            passes.append([])
        passes[turn].append(index)
    return passes
