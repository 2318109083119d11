"""Bytes of a quantized layer at inference, besides its activations."""

import math

from torch import Tensor, nn

from hqdm_bench.quantization.activation import ActivationQuantizer, AffineStatic, AffineTable
from hqdm_bench.quantization.attention import QuantizedAttention
from hqdm_bench.quantization.layers import QuantizedLayer
from hqdm_bench.quantization.learned import LearnedStep
from hqdm_bench.quantization.lora_weight import LoRAWeight
from hqdm_bench.quantization.mixed import MixedWeight
from hqdm_bench.quantization.shifted_table import ShiftedTable

__all__ = ["FLOAT_BYTES", "operand_bytes", "packed_bytes", "table_bytes"]

FLOAT_BYTES = 4
EXPONENT_BITS = 2  # a power-of-two factor is one of four


def packed_bytes(count: int, bits: int) -> int:
    """Codes without gaps."""
    return math.ceil(count * bits / 8)


def table_bytes(layer: QuantizedLayer) -> int:
    """What a layer needs besides one set of packed codes and one grid of them.

    The step sizes and zero-points of its input at all steps, with the power-of-two factors of its
    channels; its centres; its channels' scales and shifts, with what the shifts contribute to the
    output; its signs; a byte an output channel that says its bits where they differ.

    A weight with a step size for every step has other codes at every step. Either all of them are
    kept, or what they are made from: the codes of the base (as many bytes as one set) and the
    low-rank factors, or the updated weight in float32 (in place of one set). The smaller counts.
    """
    total = _activation_bytes(layer.activation) + _floats(layer.centre)
    if layer.scaling is not None:
        total += sum(_floats(value) for value in layer.scaling.state_dict().values())
    if layer.signs is not None:
        total += packed_bytes(layer.signs.numel(), 1)
    weight = layer.weight
    if isinstance(weight, MixedWeight):
        total += weight.channel_bits.numel()
    if isinstance(weight, LoRAWeight) and weight.steps is not None:
        total += _floats(weight.scale) // weight.steps * (weight.steps - 1)
        total += _weights_of_steps(weight, weight.steps)
    return total


def operand_bytes(attention: QuantizedAttention) -> int:
    """Step sizes and zero-points of an attention's four operands at all steps."""
    return sum(_activation_bytes(operand.activation) for operand in attention.operands)


def _activation_bytes(quantizer: ActivationQuantizer) -> int:
    total = _floats(quantizer.scale)
    if isinstance(quantizer, ShiftedTable):
        total += packed_bytes(quantizer.factors.numel(), EXPONENT_BITS)
    if quantizer.zero is None:
        return total
    integer = isinstance(quantizer, (AffineStatic, LearnedStep)) or (
        isinstance(quantizer, AffineTable) and quantizer.integer_zero
    )
    size = packed_bytes(1, quantizer.bits) if integer else FLOAT_BYTES
    return total + size * quantizer.zero.numel()


def _weights_of_steps(weight: LoRAWeight, steps: int) -> int:
    codes = packed_bytes(weight.shape.numel(), weight.bits)
    if weight.base == "dequantized":
        source = _floats(weight.lora_A) + _floats(weight.lora_B)
    else:
        source = FLOAT_BYTES * weight.shape.numel() - codes
    return min((steps - 1) * codes, source)


def _floats(tensor: Tensor | nn.Parameter | None) -> int:
    return 0 if tensor is None else FLOAT_BYTES * tensor.numel()
