"""CUDA graphs: one recording of a network for every step and shape of its inputs.

A small batch spends its time on launching kernels. A graph launches a recorded forward pass at
once. A student's step sizes are numbers in the recorded launches, so each row of its step table has
a recording of its own, made at its first use; the recordings share their memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import StepIndex

__all__ = ["Recording", "StepGraphs", "record_on_gpu"]

WARM_UP = 2  # calls before a recording: kernels are compiled, tables sent, workspaces made


@dataclass(frozen=True)
class Recording:
    """A forward pass that can be repeated.

    Attributes:
        inputs: tensors it reads, in the order of the arguments.
        output: tensor it writes.
        replay: repeats it.
    """

    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], None]


Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]


class StepGraphs:
    """Called like the network, at the step that is set.

    Args:
        network: returns one tensor, without anything that waits for the GPU on its way.
        step: the holder its layers refer to.
        record: runs a call and returns its output and what repeats it; CUDA graphs if None.

    Raises:
        BenchError: the network is not on a GPU and no other ``record`` is given.
    """

    def __init__(self, network: nn.Module, step: StepIndex, record: Record | None = None) -> None:
        if record is None:
            device = next(network.parameters()).device
            if device.type != "cuda":
                raise BenchError(
                    f"CUDA graphs need a network on a GPU, this one is on {device}; call it without"
                )
            record = _Recorder()
        self.network = network
        self.step = step
        self._record = record
        self._recordings: dict[tuple[object, ...], Recording] = {}

    def __len__(self) -> int:
        """Recordings made."""
        return len(self._recordings)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the network returns; the caller owns it.

        Raises:
            BenchError: the network returns something else than one tensor.
        """
        given = (*args, *kwargs.values())
        tensors = tuple(value for value in given if isinstance(value, Tensor))
        key = (self.step.row, *_autocast(), tuple(kwargs), *(_kind(value) for value in given))
        if key not in self._recordings:
            self._recordings[key] = self._make(args, kwargs)
        recording = self._recordings[key]
        for own, value in zip(recording.inputs, tensors, strict=True):
            own.copy_(value)
        recording.replay()
        return recording.output.clone()

    def _make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recording:
        places, named = [_own(value) for value in args], {k: _own(v) for k, v in kwargs.items()}
        output, replay = self._record(lambda: self.network(*places, **named))
        if not isinstance(output, Tensor):
            raise BenchError(
                f"a recorded network returns one tensor, this one a {type(output).__name__}; call "
                "it without graphs"
            )
        inputs = tuple(x for x in (*places, *named.values()) if isinstance(x, Tensor))
        return Recording(inputs, output, replay)


def _autocast() -> tuple[object, ...]:
    return torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")


def _kind(value: Any) -> tuple[object, ...]:
    """What a recording depends on: of a tensor, all but its values."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype, value.device
    return (value,)


def _own(value: Any) -> Any:
    """A copy at an address that stays."""
    return value.clone() if isinstance(value, Tensor) else value


class _Recorder:
    """CUDA graphs of one memory pool."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, call: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return record_on_gpu(call, self._pool)


def record_on_gpu(
    call: Callable[[], Tensor], pool: Any = None
) -> tuple[Tensor, Callable[[], None]]:
    """Record a call as a CUDA graph.

    Args:
        call: reads and writes tensors on the current GPU only.
        pool: memory shared with other recordings; their outputs are read before the next one runs.

    Returns:
        Its output, and what repeats the call.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        output = call()
    return output, graph.replay
