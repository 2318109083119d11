"""Calibration calls of one timestep as a pool of samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill.calls import Call

__all__ = ["CallPool"]


class CallPool:
    """Samples of several calls, in their order, from which batches are put together.

    A tensor with as many entries as the first argument that is a tensor goes by sample; everything
    else is what all samples share, and that of the first call is taken.

    Args:
        calls: of one module, at one timestep.

    Raises:
        BenchError: there is no call, or one has no tensor.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        if not calls:
            raise BenchError("a pool of samples needs calls; give at least one")
        self.named = isinstance(calls[0], Mapping)
        self.arguments = [_arguments(call) for call in calls]
        self.counts = [_count(arguments) for arguments in self.arguments]

    def __len__(self) -> int:
        return sum(self.counts)

    def batch(self, index: Tensor) -> Call:
        """A call with some of the samples.

        Args:
            index: (n,) places in the pool.
        """
        parts: list[dict[int | str, Any]] = []
        start = 0
        places = index.cpu()
        for arguments, count in zip(self.arguments, self.counts, strict=True):
            inside = places[(places >= start) & (places < start + count)] - start
            start += count
            if len(inside):
                parts.append({key: _take(value, inside, count) for key, value in arguments.items()})
        first, rest = parts[0], parts[1:]
        joined = {
            key: torch.cat([value, *(part[key] for part in rest)])
            if _by_sample(self.arguments[0][key], self.counts[0])
            else value
            for key, value in first.items()
        }
        if self.named:
            return {str(key): value for key, value in joined.items()}
        return tuple(joined[key] for key in range(len(joined)))


def _arguments(call: Call) -> dict[int | str, Any]:
    arguments: dict[int | str, Any] = {}
    arguments.update(call if isinstance(call, Mapping) else enumerate(call))
    return arguments


def _count(arguments: Mapping[int | str, Any]) -> int:
    for value in arguments.values():
        if isinstance(value, Tensor) and value.dim():
            return len(value)
    raise BenchError("a calibration call has no tensor among its arguments; give one with samples")


def _by_sample(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count


def _take(value: Any, index: Tensor, count: int) -> Any:
    return value[index.to(value.device)] if _by_sample(value, count) else value
