"""Stand-ins for quantizers, which look at what they are given."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor, nn

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.methods import Student
from hqdm_bench.quantization import QuantizedInput

__all__ = ["PassThrough", "exact_activations", "probing"]

Probe = TypeVar("Probe", bound=nn.Module)


@contextlib.contextmanager
def exact_activations(student: Student) -> Iterator[None]:
    """Leave activations as they are, in attention too; weights stay quantized."""
    with probing(student, PassThrough):
        yield


class PassThrough(nn.Module):
    """Stands for a quantizer and changes nothing."""

    def __init__(self, holder: QuantizedInput) -> None:
        super().__init__()

    def forward(self, x: Tensor, row: int, rotation: BlockRotation | None = None) -> Tensor:
        """Return the input."""
        return x


@contextlib.contextmanager
def probing(student: Student, make: Callable[[QuantizedInput], Probe]) -> Iterator[list[Probe]]:
    """Put probes in the place of the quantizers, one made for each layer or operand."""
    holders: list[QuantizedInput] = list(student.quantized_inputs().values())
    quantizers = [holder.activation for holder in holders]
    probes = [make(holder) for holder in holders]
    try:
        for holder, probe in zip(holders, probes, strict=True):
            holder.activation = probe  # type: ignore[assignment]
        yield probes
    finally:
        for holder, quantizer in zip(holders, quantizers, strict=True):
            holder.activation = quantizer
