"""Attention whose two products multiply quantized operands.

Q-Diffusion, and QuEST after it, quantize query, key, value and the output of the softmax; the other
methods leave the products in full precision.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.attention import QKVAttention, TokenAttention
from hqdm_bench.quantization.activation import ActivationQuantizer
from hqdm_bench.quantization.layers import QuantizedLayer
from hqdm_bench.quantization.step import StepIndex
from hqdm_bench.quantization.surgery import replace

__all__ = [
    "MakeOperand",
    "QuantizedAttention",
    "QuantizedInput",
    "QuantizedOperand",
    "QuantizedQKVAttention",
    "QuantizedTokenAttention",
    "quantize_attention",
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
        return {f"activation.{key}": value for key, value in self.activation.named_buffers()}


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
        source: what it replaces; gives the scale.
        operand: see `QuantizedAttention`.
        probabilities: likewise.
        step: likewise.
    """

    def __init__(
        self,
        source: TokenAttention,
        operand: MakeOperand,
        probabilities: MakeOperand,
        step: StepIndex,
    ) -> None:
        super().__init__(operand, probabilities, step)
        self.scale = source.scale

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map (B, heads, T, d) and twice (B, heads, L, d) to (B, heads, T, d)."""
        scores = self.query(query) @ self.key(key).transpose(2, 3) * self.scale
        return self.probabilities(torch.softmax(scores, dim=-1)) @ self.value(value)

    def macs(self, *inputs: Tensor) -> int:
        """Tokens times tokens of the context times channels."""
        query, key, _ = inputs
        return query.numel() * key.shape[2]


class QuantizedQKVAttention(QuantizedAttention):
    """`QKVAttention` with quantized products; as released, q and k are scaled before their grids.

    Args:
        source: what it replaces; gives the number of heads.
        operand: see `QuantizedAttention`.
        probabilities: likewise.
        step: likewise.
    """

    def __init__(
        self,
        source: QKVAttention,
        operand: MakeOperand,
        probabilities: MakeOperand,
        step: StepIndex,
    ) -> None:
        super().__init__(operand, probabilities, step)
        self.heads = source.heads

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


def quantize_attention(
    network: nn.Module, operand: MakeOperand, probabilities: MakeOperand, step: StepIndex
) -> list[str]:
    """Put quantized attention in the place of every attention of a known class.

    Args:
        network: changed in place.
        operand: makes the quantizer of query, key and value.
        probabilities: makes that of the softmax's output.
        step: the student's step holder.

    Returns:
        Dotted names of what was replaced, in module order.

    Raises:
        BenchError: the network has no attention of a known class.
    """
    like, done = next(network.parameters()), []
    for name, source in list(network.named_modules()):
        new: QuantizedAttention
        if type(source) is TokenAttention:
            new = QuantizedTokenAttention(source, operand, probabilities, step)
        elif type(source) is QKVAttention:
            new = QuantizedQKVAttention(source, operand, probabilities, step)
        else:
            continue
        replace(network, name, new.to(like))
        done.append(name)
    if not done:
        raise BenchError(
            f"{type(network).__name__} has no attention whose products can be quantized "
            "(TokenAttention and QKVAttention of hqdm_bench.models.attention can be); take option "
            "attention 'full_precision'"
        )
    return done
