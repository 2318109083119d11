"""Putting quantized attention in the place of what a network has."""

from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.models.attention import QKVAttention, TokenAttention
from hqdm_bench.quantization.attention import (
    MakeOperand,
    QuantizedQKVAttention,
    QuantizedTokenAttention,
)
from hqdm_bench.quantization.fused_attention import QuantizedProcessor, has_processor
from hqdm_bench.quantization.step import StepIndex
from hqdm_bench.quantization.surgery import replace

__all__ = ["quantize_attention"]


def quantize_attention(
    network: nn.Module, operand: MakeOperand, probabilities: MakeOperand, step: StepIndex
) -> list[str]:
    """Quantize the products of every attention of a known kind.

    Known are `TokenAttention` and `QKVAttention`, and the attentions of diffusers as far as their
    processors call PyTorch's fused attention, which is seen only when they run.

    Args:
        network: changed in place.
        operand: makes the quantizer of query, key and value.
        probabilities: makes that of the softmax's output.
        step: the student's step holder.

    Returns:
        Dotted names of the quantized attentions, in module order; none in a network without
        attention.

    Raises:
        BenchError: the only attention in the network is of a kind whose products cannot be reached.
    """
    like, done = next(network.parameters()), []
    for name, source in list(network.named_modules()):
        if type(source) is TokenAttention:
            tokens = QuantizedTokenAttention(source.scale, operand, probabilities, step)
            replace(network, name, tokens.to(like))
            done.append(name)
        elif type(source) is QKVAttention:
            pixels = QuantizedQKVAttention(source.heads, operand, probabilities, step)
            replace(network, name, pixels.to(like))
            done.append(name)
        elif has_processor(source):
            tokens = QuantizedTokenAttention(1.0, operand, probabilities, step).to(like)
            new = QuantizedProcessor(source.processor, tokens).train(source.training)
            source.processor = new
            done.append(f"{name}.processor.attention" if name else "processor.attention")
    if not done and any(isinstance(m, nn.MultiheadAttention) for m in network.modules()):
        raise BenchError(
            f"{type(network).__name__} has no attention whose products can be quantized "
            "(TokenAttention and QKVAttention of hqdm_bench.models.attention can be, and "
            "diffusers' attentions with a processor); take option attention 'full_precision'"
        )
    return done
