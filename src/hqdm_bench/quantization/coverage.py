"""What a quantized model computes at which bits."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization.layers import QuantizedLayer
from hqdm_bench.quantization.weight import LoRAWeight, StaticWeight

__all__ = ["coverage"]

FLOAT_BITS = 32
KINDS = (nn.Conv1d, nn.Conv2d, nn.Linear, QuantizedLayer)


def coverage(model: nn.Module, inputs: Sequence[Any]) -> dict[str, Any]:
    """Shares of multiply-accumulates and weights at each bit-width, measured by one forward pass.

    Counts convolutions and linear layers; products inside attention are not layers and are not
    counted. Low-rank factors are merged before use and add nothing.

    Args:
        model: a model with or without `QuantizedLayer` in it, ready to run (calibrated, step set).
        inputs: positional arguments of its forward. Counts are per call, so a batch of one gives
            the cost of one image.

    Returns:
        ``by_bits``: {"w4a4": {"layers", "macs", "weights", "mac_share", "weight_share"}, ...} with
        the full-precision layers under "w32a32"; ``macs``; ``weights``; ``bops``, bit operations,
        the sum of macs * weight bits * activation bits; ``weight_bytes``, codes packed without
        gaps and float32 elsewhere; ``float_weight_bytes``, all in float32; ``grid_bytes``, a
        float32 step size and a one-byte zero-point an output channel of the quantized layers.

    Raises:
        BenchError: the model has no convolution or linear layer that ran.
    """
    macs: dict[str, int] = {}
    layers = dict(_counted_layers(model))
    with _counting(layers, macs), torch.no_grad():
        model(*inputs)
    if not macs:
        raise BenchError(f"{type(model).__name__} ran no convolution or linear layer")
    groups: dict[str, dict[str, Any]] = {}
    totals = {"macs": 0, "weights": 0, "bops": 0, "weight_bytes": 0, "grid_bytes": 0}
    for name, layer in layers.items():
        weight_bits, activation_bits = _bits(layer)
        count, weights = macs.get(name, 0), _weight_shape(layer).numel()
        empty = {"layers": 0, "macs": 0, "weights": 0}
        group = groups.setdefault(f"w{weight_bits}a{activation_bits}", empty)
        for key, value in (("layers", 1), ("macs", count), ("weights", weights)):
            group[key] += value
        totals["macs"] += count
        totals["weights"] += weights
        totals["bops"] += count * weight_bits * activation_bits
        totals["weight_bytes"] += math.ceil(weights * weight_bits / 8)
        totals["grid_bytes"] += 5 * _weight_shape(layer)[0] if weight_bits < FLOAT_BITS else 0
    for group in groups.values():
        group["mac_share"] = group["macs"] / totals["macs"]
        group["weight_share"] = group["weights"] / totals["weights"]
    return {"by_bits": groups, **totals, "float_weight_bytes": 4 * totals["weights"]}


def _counted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, KINDS))


@contextlib.contextmanager
def _counting(layers: dict[str, nn.Module], macs: dict[str, int]) -> Iterator[None]:
    """Add to ``macs``, by name, what every call of a layer multiplies."""

    def hook(name: str) -> Any:
        def count(layer: nn.Module, _: Any, output: Tensor) -> None:
            per_output = _weight_shape(layer)[1:].numel()
            macs[name] = macs.get(name, 0) + output.numel() * per_output

        return count

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weight_shape(layer: nn.Module) -> torch.Size:
    weight = layer.weight
    assert isinstance(weight, (Tensor, LoRAWeight, StaticWeight))
    return weight.shape


def _bits(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, QuantizedLayer):
        return layer.weight.bits, layer.activation.bits
    return FLOAT_BITS, FLOAT_BITS
