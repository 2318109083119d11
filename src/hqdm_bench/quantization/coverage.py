"""What a quantized model computes at which bits."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.attention import QuantizedAttention
from hqdm_bench.quantization.channel_step import ChannelStep
from hqdm_bench.quantization.composite import RepeatedChannels, composites
from hqdm_bench.quantization.layers import QuantizedLayer, Weight
from hqdm_bench.quantization.quantizable import LAYERS, TRANSPOSED
from hqdm_bench.quantization.sizes import FLOAT_BYTES, operand_bytes, packed_bytes, table_bytes

__all__ = ["coverage"]

FLOAT_BITS = 32
INDEX_BYTES = 4


def coverage(model: nn.Module, inputs: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Shares of multiply-accumulates and weights at each bit-width, measured by one forward pass.

    Counts convolutions, transposed ones too, linear layers and the projections of
    nn.MultiheadAttention. Products inside attention are not layers and are not counted among them
    (``attention`` says which are quantized), nor are rotations, norms and whatever a quantizer
    computes. Low-rank factors are merged before use and add nothing, except where the weight has a
    step size for every step. A weight whose channels have different bits counts at their mean.

    Args:
        model: a model with or without `QuantizedLayer` in it, ready to run (calibrated, step set).
        inputs: arguments of its forward, a sequence of positional ones or a mapping by name. Counts
            are per call, so a batch of one gives the cost of one image.

    Returns:
        ``by_bits``: {"w4a4": {"layers", "macs", "weights", "mac_share", "weight_share"}, ...} with
        the full-precision layers under "w32a32"; ``low_bit``: {"mac_share", "weight_share"} of the
        layers whose role is low_bit, at whatever bits, which at w8a8 the widths cannot tell from
        those fixed at 8 bits; ``channel_steps``: likewise of the layers with a step size for each
        input channel, which no integer arithmetic can have; ``macs``; ``weights``; ``bops``, bit
        operations, the sum of macs * weight bits * activation bits; ``weight_bytes``, codes packed
        without gaps and float32 elsewhere; ``float_weight_bytes``, all in float32, those of
        repeated channels once; ``grid_bytes``, a float32 step size and a one-byte zero-point an
        output channel of the quantized layers;
        ``table_bytes``, what else these layers need at inference: activation step sizes and
        zero-points of all steps (real ones in float32, integers at their bits), those of attention
        too, centres and their products in float32, signs at a bit, and, of weights with a step size
        for every step, those beyond the first and the smaller of codes for every step or what the
        codes are made from; and the numbers of repeated channels;
        ``uncounted_weights``, entries of parameters with two or more axes that belong to no counted
        layer, such as embeddings and recurrent layers; ``attention``: {"products", "macs", "bits"}
        of the products inside attention whose factors are quantized, two in each attention, the
        bits as in ["a4a4", "a8a4"] for query and key, probabilities and value.

    Raises:
        BenchError: the model has no convolution or linear layer that ran, or ``inputs`` is a
            tensor.
    """
    if isinstance(inputs, Tensor):
        raise BenchError("coverage takes the arguments of a call; write coverage(model, (x,))")
    layers = dict(_counted_layers(model))
    attention = dict(_quantized_attention(model))
    macs = _count(model, inputs, {**layers, **attention})
    if not macs:
        raise BenchError(f"{type(model).__name__} ran no convolution or linear layer")
    groups: dict[str, dict[str, int]] = {}
    low_bit, by_channel = {"macs": 0, "weights": 0}, {"macs": 0, "weights": 0}
    totals = {"macs": 0, "weights": 0, "bops": 0}
    for name, layer in layers.items():
        weight_bits, activation_bits = _bits(layer)
        empty = {"layers": 0, "macs": 0, "weights": 0}
        group = groups.setdefault(f"w{weight_bits}a{activation_bits}", empty)
        group["layers"] += 1
        parts = [group, totals]
        parts += [low_bit] if _is_low_bit(layer) else []
        parts += [by_channel] if _has_channel_steps(layer) else []
        for part in parts:
            part["macs"] += macs.get(name, 0)
            part["weights"] += _weights(layer)
        totals["bops"] += macs.get(name, 0) * weight_bits * activation_bits
    return {
        "by_bits": {bits: {**group, **_shares(group, totals)} for bits, group in groups.items()},
        "low_bit": _shares(low_bit, totals),
        "channel_steps": _shares(by_channel, totals),
        **totals,
        **_bytes(model, (*layers.values(), *attention.values())),
        "attention": _products(attention, macs),
        "uncounted_weights": _uncounted(model, layers.values()),
    }


def _shares(part: Mapping[str, int], totals: Mapping[str, int]) -> dict[str, float]:
    return {
        "mac_share": part["macs"] / totals["macs"],
        "weight_share": part["weights"] / totals["weights"],
    }


def _bytes(model: nn.Module, layers: Iterable[nn.Module]) -> dict[str, int]:
    found = {"weight_bytes": 0, "float_weight_bytes": 0, "grid_bytes": 0, "table_bytes": 0}
    for layer in layers:
        if isinstance(layer, QuantizedAttention):
            found["table_bytes"] += operand_bytes(layer)
            continue
        found["weight_bytes"] += packed_bytes(_weights(layer), _bits(layer)[0])
        found["float_weight_bytes"] += FLOAT_BYTES * _weights(layer)
        if isinstance(layer, QuantizedLayer):
            found["grid_bytes"] += (FLOAT_BYTES + 1) * layer.weight.shape[0]
            found["table_bytes"] += table_bytes(layer)
    for repeated in composites(model).values():
        if isinstance(repeated, RepeatedChannels):
            found["float_weight_bytes"] -= FLOAT_BYTES * repeated.extra_weights
            found["table_bytes"] += INDEX_BYTES * len(repeated.channels)
    return found


def _quantized_attention(model: nn.Module) -> Iterator[tuple[str, QuantizedAttention]]:
    for name, module in model.named_modules():
        if isinstance(module, QuantizedAttention):
            yield name, module


def _products(
    attention: Mapping[str, QuantizedAttention], macs: Mapping[str, int]
) -> dict[str, Any]:
    """Products that ran on quantized factors, and the bits of these."""
    ran = {name: module for name, module in attention.items() if name in macs}
    bits = dict.fromkeys(f"a{left}a{right}" for each in ran.values() for left, right in each.bits)
    return {
        "products": 2 * len(ran),
        "macs": sum(macs[name] for name in ran),
        "bits": list(bits),
    }


def _uncounted(model: nn.Module, layers: Iterable[nn.Module]) -> int:
    counted = {id(parameter) for layer in layers for parameter in layer.parameters()}
    rest = (entry for entry in model.parameters() if id(entry) not in counted)
    return sum(entry.numel() for entry in rest if entry.dim() > 1)


def _counted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that hold weights by name; the output projection of an attention belongs to it."""
    within: tuple[str, ...] = ()
    for name, layer in model.named_modules():
        if isinstance(layer, (QuantizedLayer, *LAYERS)) and not name.startswith(within):
            yield name, layer
            if isinstance(layer, nn.MultiheadAttention):
                within = (*within, f"{name}." if name else "")


def _count(
    model: nn.Module, inputs: Sequence[Any] | Mapping[str, Any], layers: Mapping[str, nn.Module]
) -> dict[str, int]:
    """What every call of a layer multiplies, by name, added up over one pass."""
    macs: dict[str, int] = {}

    def hook(name: str) -> Any:
        def count(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            macs[name] = macs.get(name, 0) + _macs(layer, args, kwargs, output)

        return count

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(_layer_by_layer())
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hook(name), with_kwargs=True).remove)
        if isinstance(inputs, Mapping):
            model(**inputs)
        else:
            model(*inputs)
    return macs


@contextlib.contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Make nn.TransformerEncoderLayer call its layers, instead of one function for all of them."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _macs(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> int:
    if isinstance(layer, QuantizedAttention):
        return 2 * layer.macs(*args)
    if isinstance(layer, nn.MultiheadAttention):
        query, key, value = (
            args[place] if place < len(args) else kwargs[name]
            for place, name in enumerate(("query", "key", "value"))
        )
        # The query is projected, and as much again comes out.
        return layer.embed_dim * (2 * query.numel() + key.numel() + value.numel())
    if isinstance(layer, TRANSPOSED):  # weight (c_in, c_out / groups, ...): each input once
        x: Tensor = args[0] if args else kwargs["input"]
        return x.numel() * layer.weight.shape[1:].numel()
    return output.numel() * _shape(layer)[1:].numel()


def _shape(layer: nn.Module) -> torch.Size:
    weight = layer.weight
    assert isinstance(weight, Tensor | Weight)
    return weight.shape


def _weights(layer: nn.Module) -> int:
    if isinstance(layer, nn.MultiheadAttention):
        return sum(entry.numel() for entry in layer.parameters() if entry.dim() == 2)
    return _shape(layer).numel()


def _bits(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, QuantizedLayer):
        return layer.weight.bits, layer.activation.bits
    return FLOAT_BITS, FLOAT_BITS


def _is_low_bit(layer: nn.Module) -> bool:
    return isinstance(layer, QuantizedLayer) and layer.low_bit


def _has_channel_steps(layer: nn.Module) -> bool:
    return isinstance(layer, QuantizedLayer) and isinstance(layer.activation, ChannelStep)
