"""The input of a layer of which only the weight is quantized."""

import torch
from torch import Tensor, nn

from hqdm_bench.hadamard import BlockRotation
from hqdm_bench.quantization.activation import ActivationQuantizer, Number
from hqdm_bench.quantization.step import Row

__all__ = ["ExactInput"]


class ExactInput(ActivationQuantizer):
    """Passes its input on as it is, in float32; there is nothing to calibrate or to store."""

    def __init__(self) -> None:
        nn.Module.__init__(self)  # 32 bits are no width of a grid
        self.bits = 32
        self.steps = 1
        self.register_buffer("scale", torch.empty(0), persistent=False)
        self.zero = None

    @property
    def limits(self) -> tuple[int, int]:
        """There are no codes."""
        return 0, 0

    def calibrate(self, x: Tensor, step: int | None = None) -> None:
        """Nothing to search."""

    def initialise(
        self, scale: Number, zero: Number | None = None, step: int | None = None
    ) -> None:
        """Nothing to store."""

    def forward(self, x: Tensor, row: Row, rotation: BlockRotation | None = None) -> Tensor:
        """The input; a rotation there and back leaves it as it is."""
        return x
