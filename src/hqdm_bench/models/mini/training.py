"""What both trainings of an embedded model share: learning rate, optimiser state, checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import read_tensors, write_tensors

__all__ = ["Checkpoint", "TrainingState", "cosine_rate"]


def cosine_rate(update: int, total: int, warmup: int) -> float:
    """Factor on the learning rate: linear up to 1, then half a cosine down to 0."""
    if update < warmup:
        return (update + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (update - warmup) / max(total - warmup, 1)))


@dataclass(frozen=True)
class Checkpoint:
    """Where an interrupted training continues.

    Attributes:
        path: safetensors file, or None to keep nothing.
        digest: of the recipe; a file with another one is refused.
        every: updates between two writings.
    """

    path: Path | None
    digest: str
    every: int

    def load(self) -> tuple[int, dict[str, Tensor]]:
        """Updates done and state; (0, {}) when there is no file.

        Raises:
            BenchError: the file belongs to another recipe.
        """
        if self.path is None or not self.path.is_file():
            return 0, {}
        tensors, metadata = read_tensors(self.path)
        if metadata.get("digest") != self.digest:
            raise BenchError(
                f"{self.path} is a checkpoint of another recipe ({metadata.get('digest')}, not "
                f"{self.digest}); delete it to train from the start"
            )
        return int(metadata["updates"]), tensors

    def due(self, updates: int, total: int) -> bool:
        """Whether to write after this many updates; the finished state is always written."""
        return self.path is not None and (updates % self.every == 0 or updates == total)

    def save(self, updates: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the state after ``updates`` updates."""
        if self.path is not None:
            write_tensors(self.path, tensors, {"digest": self.digest, "updates": updates})


class TrainingState:
    """Parameters, AdamW moments and averaged weights of one training.

    Args:
        modules: trained modules by name.
        options: of ``torch.optim.AdamW``.
        ema_decay: decay of the averaged weights; None keeps none.
    """

    def __init__(
        self, modules: Mapping[str, nn.Module], options: Mapping[str, Any], ema_decay: float | None
    ) -> None:
        self.parameters = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
        }
        self.rate = float(options["lr"])
        self.optimizer = torch.optim.AdamW(self.parameters.values(), **options, fused=True)
        self.decay = ema_decay
        self.average = [parameter.detach().clone() for parameter in self.parameters.values()]

    def step(self, loss: Tensor, update: int, factor: float) -> None:
        """One update at ``factor`` times the learning rate; then the averages follow.

        Early averages use the smaller decay (1 + n) / (10 + n), as LDM's do.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.decay is not None:
            decay = min(self.decay, (1 + update) / (10 + update))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.parameters.values()), 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the modules."""
        for parameter, average in zip(self.parameters.values(), self.average, strict=True):
            parameter.copy_(average)

    def tensors(self) -> dict[str, Tensor]:
        """Everything a bit-identical continuation needs."""
        result: dict[str, Tensor] = {}
        for (name, parameter), average in zip(self.parameters.items(), self.average, strict=True):
            result[f"weight/{name}"] = parameter
            if self.decay is not None:
                result[f"average/{name}"] = average
            for key, value in self.optimizer.state[parameter].items():
                result[f"{key}/{name}"] = value
        return result

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what ``tensors`` returned."""
        for (name, parameter), average in zip(self.parameters.items(), self.average, strict=True):
            parameter.copy_(tensors[f"weight/{name}"])
            if self.decay is not None:
                average.copy_(tensors[f"average/{name}"])
            # The fused update walks through memory: moments must be laid out as their parameter is.
            moments = {
                key: torch.empty_like(parameter).copy_(tensors[f"{key}/{name}"])
                for key in ("exp_avg", "exp_avg_sq")
            }
            step = tensors[f"step/{name}"].clone()
            self.optimizer.state[parameter] = {"step": step, **moments}
