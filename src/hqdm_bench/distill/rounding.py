"""Weights whose rounding is being learned, in the place of static ones."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import RoundingFit, Student
from hqdm_bench.quantization import AdaRoundWeight, QuantizedLayer, StaticWeight
from hqdm_bench.quantization.blocks import Unit
from hqdm_bench.quantization.composite import float_weight

__all__ = ["learned_rounding", "unit_layers", "weighted_penalty"]


def unit_layers(student: Student, unit: Unit) -> dict[str, QuantizedLayer]:
    """The layers of a unit that are reconstructed, by name."""
    layers = {name: student.network.get_submodule(name) for name in unit.layers}
    return {name: layer for name, layer in layers.items() if isinstance(layer, QuantizedLayer)}


@contextlib.contextmanager
def learned_rounding(
    student: Student, teacher: nn.Module, unit: Unit, weights: Mapping[str, Tensor] | None = None
) -> Iterator[list[AdaRoundWeight]]:
    """Put `AdaRoundWeight` in the layers of a unit, and static weights of its sides in the end.

    Args:
        student: whose layers.
        teacher: gives the float weights.
        unit: which layers.
        weights: float weights by layer, for layers whose weight is not the teacher's.

    Raises:
        BenchError: a weight is not static.
    """
    layers = unit_layers(student, unit)
    for name, layer in layers.items():
        if not isinstance(layer.weight, StaticWeight):
            raise BenchError(f"the rounding of '{name}' cannot be learned; its weight is trained")
    rounded: list[AdaRoundWeight] = []
    try:
        for name, layer in layers.items():
            assert isinstance(layer.weight, StaticWeight)
            source = (weights or {}).get(name)
            if source is None and layer.scaling is not None:
                source = layer.scaling.moved_apart(layer.weight.scale)
            elif source is None:
                source = float_weight(student.network, teacher, name)
            weight = AdaRoundWeight.from_static(source.to(layer.weight.scale), layer.weight)
            rounded.append(weight)
            layer.weight = weight
        yield rounded
    finally:
        for layer, weight in zip(layers.values(), rounded, strict=False):
            layer.weight = weight.commit()


def weighted_penalty(
    rounded: Sequence[AdaRoundWeight], fit: RoundingFit
) -> Callable[[int], Tensor | None]:
    """The rounding penalty of an update, counted from 1; None during the warm-up."""
    beta = fit.beta

    def penalty(update: int) -> Tensor | None:
        exponent = beta.at(update)
        if exponent is None:
            return None
        return fit.penalty * torch.stack([weight.penalty(exponent) for weight in rounded]).sum()

    return penalty
