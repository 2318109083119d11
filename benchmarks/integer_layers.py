"""Every layer shape of a student, in float32, bfloat16, fake-quantized and as integers."""

import copy
from typing import Any

import torch
from integer_common import by_shape
from timing import seconds
from torch import nn

from hqdm_bench.integer import IntegerLayer, IntegerStudent
from hqdm_bench.integer.codes import encode
from hqdm_bench.methods import Student
from hqdm_bench.models import UNet

__all__ = ["layer_times"]


@torch.no_grad()
def layer_times(
    unet: UNet, student: Student, integer: IntegerStudent, call: tuple[Any, ...], rounds: int
) -> list[dict[str, Any]]:
    """One entry a distinct shape, with how often it occurs."""

    def measure(name: str, layer: IntegerLayer, x: torch.Tensor) -> dict[str, Any]:
        return _one_layer(unet.get_submodule(name), student, layer, x, name, rounds)

    return by_shape(integer, call, measure)


def _one_layer(
    source: nn.Module,
    student: Student,
    layer: IntegerLayer,
    x: torch.Tensor,
    name: str,
    rounds: int,
) -> dict[str, float]:
    fake, plain = student.quantized_layers()[name], x.contiguous()
    half = copy.deepcopy(source).bfloat16()
    x_half = plain.bfloat16()
    row, rotation = layer.step.row, layer.rotation_of(x)
    grid = layer.grid(row)
    codes = encode(x, grid, rotation, None, layer.spec.linear)
    product = layer.product(layer.fold_order(rotation), row)
    kernel = product.parts[0][1]
    entry = product._enter(codes)
    macs = layer(x).numel() * torch.Size(layer.spec.shape[1:]).numel()
    return {
        "macs": macs,
        "weight_digits": len(product.parts),
        "float32": seconds(lambda: source(plain), rounds),
        "bfloat16": seconds(lambda: half(x_half), rounds),
        "fake": seconds(lambda: fake(plain), rounds),
        "integer": seconds(lambda: layer(x), rounds),
        "encode": seconds(lambda: encode(x, grid, rotation, None, layer.spec.linear), rounds),
        "multiply": seconds(lambda: kernel(entry, grid.zero, 1.0, layer.bias), rounds),
    }
