"""How many input codes of an integer student differ from those of the student it was made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.integer.layer import IntegerLayer
from hqdm_bench.integer.student import IntegerStudent
from hqdm_bench.methods import Student
from hqdm_bench.quantization import QuantizedLayer

__all__ = ["Agreement", "compare_codes", "different_codes"]


@dataclass(frozen=True)
class Agreement:
    """Codes that both students computed from the same layer inputs.

    Attributes:
        total: codes compared.
        different: how many differ, for each layer where any does.
    """

    total: int
    different: dict[str, int]

    @property
    def share(self) -> float:
        """Of codes that differ."""
        return sum(self.different.values()) / max(1, self.total)


@torch.no_grad()
def different_codes(fake: QuantizedLayer, integer: IntegerLayer, x: Tensor) -> int:
    """How many codes of an input differ between a fake-quantized layer and its integer one.

    Both at the step that is set. The fake-quantized layer's are judged by what it multiplies, code
    times step size, bit for bit.

    Args:
        fake: the layer.
        integer: made from it, on the same device.
        x: float32 input of both.
    """
    row = fake.step.row
    expected = fake.activation(fake.quantizer_input(x), row)
    scale = integer.grid(row).scale
    return int((integer.codes(x) * scale != expected).sum())


@torch.no_grad()
def compare_codes(
    student: Student, integer: IntegerStudent, calls: Sequence[tuple[Any, ...]]
) -> Agreement:
    """Count over every layer, each given what the integer student feeds it.

    Args:
        student: fake-quantized.
        integer: made from it, on the same device.
        calls: arguments of the students, every one at a timestep of the table.
    """
    total, different = 0, dict.fromkeys(integer.integer_layers(), 0)
    assert student.step is not None
    assert integer.step is not None
    fakes = student.quantized_layers()
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, args, out, name=name: seen.append((name, args[0])))
        for name, layer in integer.integer_layers().items()
    ]
    try:
        for call in calls:
            integer(*call)
            student.step.set(integer.step.timesteps[integer.step.index])
            for name, x in seen:
                layer = integer.integer_layers()[name]
                different[name] += different_codes(fakes[name], layer, x)
                total += x.numel()
            seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return Agreement(total, {name: count for name, count in different.items() if count})
