"""Channel maxima of layer inputs, before and after the Hadamard transform (HQ-DM, Fig. 2, 5-10)."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import write_tensors
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.hadamard import block_rotate, divides
from hqdm_bench.models import LatentDiffusion

__all__ = ["ChannelMaxima", "Outliers", "record_outliers", "write_outliers"]

Layer = nn.Conv1d | nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Outliers:
    """What the channel figures are drawn from.

    Attributes:
        tensors: ``{layer}/step{index}/before`` and ``/after``, (C,) largest absolute input of each
            channel; ``{layer}/weight/before`` and ``/after``, (c_out, c_in, ...).
        metadata: layers, steps, timesteps, order, trajectories.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


class ChannelMaxima:
    """Running channel maxima of one layer's input, as it comes and rotated.

    Args:
        axis: channel axis of the input.
        order: k of the block size 2^k.
    """

    def __init__(self, axis: int, order: int) -> None:
        self._axis = axis
        self._order = order
        self.before: Tensor | None = None
        self.after: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Take another input into account."""
        rotated = block_rotate(x, self._order, self._axis)
        self.before = self._maximum(self.before, x)
        self.after = self._maximum(self.after, rotated)

    def _maximum(self, so_far: Tensor | None, x: Tensor) -> Tensor:
        largest = x.abs().movedim(self._axis, 0).flatten(1).amax(1).float().cpu()
        return largest if so_far is None else torch.maximum(so_far, largest)


@torch.no_grad()
def record_outliers(
    teacher: LatentDiffusion,
    trajectories: Trajectories,
    layers: Sequence[str],
    steps: Sequence[int],
    order: int = 5,
) -> Outliers:
    """Run the teacher on its stored trajectories and record what enters the named layers.

    The teacher sees the batches a student sees: under guidance the unconditional half comes with
    the conditional one. Maxima are over all rows, positions and trajectories.

    Args:
        teacher: full-precision model.
        trajectories: x_t (N, S, B, C, h, w) and labels.
        layers: CompVis names of convolutions or linear layers.
        steps: step-table indices, 0 is the last denoising step.
        order: k of the block size 2^k.

    Raises:
        BenchError: an unknown layer or step, or channels that do not split into whole blocks.
    """
    modules = {name: _layer(teacher.unet, name, order) for name in layers}
    tensors: dict[str, Tensor] = {}
    for step in steps:
        if not 0 <= step < len(trajectories.timesteps):
            raise BenchError(
                f"step {step} is outside the step table; it has 0 to "
                f"{len(trajectories.timesteps) - 1}"
            )
        with _recording(modules, order) as maxima:
            _replay(teacher, trajectories, step)
        for name, found in maxima.items():
            if found.before is None or found.after is None:
                raise BenchError(f"layer '{name}' did not run in a forward pass of the model")
            tensors[f"{name}/step{step}/before"] = found.before
            tensors[f"{name}/step{step}/after"] = found.after
    for name, module in modules.items():
        tensors[f"{name}/weight/before"] = module.weight.detach().float().cpu().clone()
        tensors[f"{name}/weight/after"] = block_rotate(module.weight.detach(), order, 1).cpu()
    metadata = {
        "layers": list(layers),
        "steps": list(steps),
        "timesteps": [trajectories.timesteps[step] for step in steps],
        "order": order,
        "trajectories": len(trajectories),
    }
    return Outliers(tensors, metadata)


def write_outliers(path: Path, outliers: Outliers) -> None:
    """Write as safetensors, atomically."""
    write_tensors(path, outliers.tensors, outliers.metadata)


def _replay(teacher: LatentDiffusion, trajectories: Trajectories, step: int) -> None:
    device = next(teacher.unet.parameters()).device
    for number, x_t in enumerate(trajectories.x_t[:, step]):
        labels = None if trajectories.labels is None else trajectories.labels[number].to(device)
        teacher.predict(x_t.to(device), trajectories.timesteps[step], labels, trajectories.guidance)


@contextmanager
def _recording(modules: Mapping[str, Layer], order: int) -> Iterator[dict[str, ChannelMaxima]]:
    """Channel maxima of the modules' inputs while the context is open."""
    maxima: dict[str, ChannelMaxima] = {}
    handles = []
    for name, module in modules.items():
        maxima[name] = own = ChannelMaxima(-1 if isinstance(module, nn.Linear) else 1, order)
        # The default argument binds this layer's maxima, not those of the loop's last layer.
        handles.append(
            module.register_forward_pre_hook(lambda _, inputs, own=own: own.update(inputs[0]))
        )
    try:
        yield maxima
    finally:
        for handle in handles:
            handle.remove()


def _layer(unet: nn.Module, name: str, order: int) -> Layer:
    layers = {key: part for key, part in unet.named_modules() if isinstance(part, Layer)}
    if name not in layers:
        close = difflib.get_close_matches(name, layers, n=5, cutoff=0.4)
        hint = f"close names: {', '.join(close)}" if close else "no name is close to it"
        raise BenchError(f"the model has no convolution or linear layer '{name}'; {hint}")
    layer = layers[name]
    if not divides(layer.weight.shape[1], order):
        raise BenchError(
            f"layer '{name}' has {layer.weight.shape[1]} input channels, which do not split into "
            f"Hadamard blocks of {2**order}; leave it out of the figure or choose a smaller order"
        )
    return layer
