"""Attention whose two products multiply quantized operands.

Q-Diffusion, and QuEST after it, quantize query, key, value and the output of the softmax; the other
methods leave the products in full precision.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hqdm_bench.quantization.activation import ActivationQuantizer
from hqdm_bench.quantization.layers import QuantizedLayer
from hqdm_bench.quantization.step import StepIndex

__all__ = [
    "MakeOperand",
    "QuantizedAttention",
    "QuantizedInput",
    "QuantizedOperand",
    "QuantizedQKVAttention",
    "QuantizedTokenAttention",
]

WIDE = 16  # bits at which a step of the softmax's output is not worth learning

MakeOperand = Callable[[], ActivationQuantizer]


class QuantizedOperand(nn.Module):
    """One operand of a product, on the grid of the student's step.

    Args:
        activation: its quantizer.
        step: the student's step holder; referred to, not copied.
    """

    def __init__(self, activation: ActivationQuantizer, step: StepIndex) -> None:
        super().__init__()
        self.activation = activation
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantize a tensor of any shape."""
        return self.activation(x, self.step.row)

    def measured(self) -> dict[str, Tensor]:
        """What calibration sets and training leaves alone, by name; not copied."""
        return {f"activation.{key}": value for key, value in self.activation.untrained().items()}


QuantizedInput = QuantizedLayer | QuantizedOperand  # what has a quantizer of an activation


class QuantizedAttention(nn.Module, ABC):
    """Q_p(softmax(Q_q(q) Q_k(k)^T / sqrt(d))) Q_v(v) in place of a full-precision attention.

    Args:
        operand: makes the quantizer of query, key and value, each its own.
        probabilities: makes that of the softmax's output.
        step: the student's step holder.
    """

    def __init__(self, operand: MakeOperand, probabilities: MakeOperand, step: StepIndex) -> None:
        super().__init__()
        self.query = QuantizedOperand(operand(), step)
        self.key = QuantizedOperand(operand(), step)
        self.value = QuantizedOperand(operand(), step)
        self.probabilities = QuantizedOperand(probabilities(), step)

    def named_operands(self) -> dict[str, QuantizedOperand]:
        """Query, key, value and probabilities."""
        names = ("query", "key", "value", "probabilities")
        return {name: getattr(self, name) for name in names}

    @property
    def operands(self) -> tuple[QuantizedOperand, ...]:
        """Query, key, value and probabilities."""
        return tuple(self.named_operands().values())

    def step_sizes(self) -> list[nn.Parameter]:
        """Those that reconstruction learns: as released, not of probabilities at 16 bits."""
        learned = [
            operand
            for operand in self.operands
            if operand is not self.probabilities or operand.activation.bits < WIDE
        ]
        scales = [operand.activation.scale for operand in learned]
        return [scale for scale in scales if isinstance(scale, nn.Parameter)]

    @property
    def bits(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Bits of the factors of both products: query and key, probabilities and value."""
        query, key, value, probabilities = (each.activation.bits for each in self.operands)
        return (query, key), (probabilities, value)

    @abstractmethod
    def macs(self, *inputs: Tensor) -> int:
        """Multiply-accumulates of each of the two products in a call."""


class QuantizedTokenAttention(QuantizedAttention):
    """`TokenAttention` with quantized products; as released, q and k are quantized unscaled.

    Args:
        scale: of query times key.
        operand: see `QuantizedAttention`.
        probabilities: likewise.
        step: likewise.
    """

    def __init__(
        self, scale: float, operand: MakeOperand, probabilities: MakeOperand, step: StepIndex
    ) -> None:
        super().__init__(operand, probabilities, step)
        self.scale = scale

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Map (B, heads, T, d) and twice (B, heads, L, d) to (B, heads, T, d).

        Args:
            query: of T tokens.
            key: of L tokens.
            value: of the same.
            mask: broadcast to (B, heads, T, L): added to the scores, or true where a token counts.
            scale: of this call instead of its own.
        """
        scale = self.scale if scale is None else scale
        scores = self.query(query) @ self.key(key).transpose(-2, -1) * scale
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        elif mask is not None:
            scores = scores + mask
        return self.probabilities(torch.softmax(scores, dim=-1)) @ self.value(value)

    def macs(self, *inputs: Tensor) -> int:
        """Tokens times tokens of the context times channels."""
        query, key = inputs[:2]
        return query.numel() * key.shape[-2]


class QuantizedQKVAttention(QuantizedAttention):
    """`QKVAttention` with quantized products; as released, q and k are scaled before their grids.

    Args:
        heads: that the rows are split into.
        operand: see `QuantizedAttention`.
        probabilities: likewise.
        step: likewise.
    """

    def __init__(
        self, heads: int, operand: MakeOperand, probabilities: MakeOperand, step: StepIndex
    ) -> None:
        super().__init__(operand, probabilities, step)
        self.heads = heads

    def forward(self, qkv: Tensor) -> Tensor:
        """Map (B, 3C, T) to (B, C, T)."""
        batch, rows, tokens = qkv.shape
        width = rows // (3 * self.heads)
        query, key, value = qkv.reshape(batch * self.heads, 3 * width, tokens).split(width, dim=1)
        scale = width**-0.25
        scores = self.query(query * scale).transpose(1, 2) @ self.key(key * scale)
        weights = self.probabilities(torch.softmax(scores, dim=-1))
        return (self.value(value) @ weights.transpose(1, 2)).reshape(batch, -1, tokens)

    def macs(self, *inputs: Tensor) -> int:
        """Tokens squared times channels."""
        (qkv,) = inputs
        return qkv.numel() // 3 * qkv.shape[2]
