"""Effective weights kept between calls without gradients."""

from typing import TYPE_CHECKING

from torch import Tensor

from hqdm_bench.hadamard import fold
from hqdm_bench.quantization.step import Row

if TYPE_CHECKING:
    from hqdm_bench.quantization.layers import QuantizedLayer

__all__ = ["FrozenWeight"]


class FrozenWeight:
    """Effective weight of one layer, plain and folded, valid while no parameter changes.

    A weight with step sizes of its own for every step is kept for one step at a time.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._weights: dict[int, Tensor] = {}

    def weight(self, layer: "QuantizedLayer", row: Row, order: int) -> Tensor:
        """The weight at a step.

        Args:
            layer: whose weight it is.
            row: of the step.
            order: k of the blocks along the input channels that it is rotated by; 0 for none.
        """
        tensors = [*layer.weight.parameters(), *layer.weight.buffers()]
        # Every in-place update of a tensor, an optimiser's for one, raises its version; a copy of
        # the layer has other addresses.
        key = (
            row if layer.weight.steps is not None else None,
            *((tensor.data_ptr(), tensor._version) for tensor in tensors),
        )
        if key != self._key:
            self._key, self._weights = key, {}
        if order not in self._weights:
            weight = layer.weight(row)
            self._weights[order] = fold(weight, order, layer.signs) if order else weight
        return self._weights[order]
