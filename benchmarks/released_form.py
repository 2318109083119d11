"""A student in the form that the authors released: what their layers compute, step by step.

In every call a released layer unpacks its integers (8 / b to a byte), turns them into a float
weight, adds the product of the low-rank factors (for a linear layer: the factors applied to an
identity matrix), quantizes the sum again, multiplies the input by a dense C x C rotation,
quantizes it and multiplies by the rotation again. Clipping is two differences with a ReLU. The
same operations are written out here; outputs equal those of the student up to rounding.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from hqdm_bench.hadamard import sylvester
from hqdm_bench.methods import Student
from hqdm_bench.quantization import LoRAWeight, QuantizedLayer

__all__ = ["ReleasedLayer", "released_form"]


def _clip(x: Tensor, low: float, high: float) -> Tensor:
    x = x + functional.relu(low - x)
    return x - functional.relu(x - high)


def _round(x: Tensor) -> Tensor:
    return (x.round() - x) + x


class ReleasedLayer(nn.Module):
    """One low-bit layer.

    Args:
        layer: of a student of HQ-DM, preset ``as_code``.
    """

    def __init__(self, layer: QuantizedLayer) -> None:
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, LoRAWeight)
        assert weight.codes is not None
        assert weight.base_scale is not None
        self.layer = copy.copy(layer)
        self.bits, self.shape = weight.bits, weight.shape
        self.per_byte = 8 // weight.bits
        self.packed = self._pack(weight.codes)
        self.shifts = torch.arange(self.per_byte).mul(weight.bits).to(torch.uint8)
        self.zero, self.scale = weight.zero, weight.scale.detach()
        self.base_scale = weight.base_scale.detach()
        self.lora_a, self.lora_b = weight.lora_A.detach(), weight.lora_B.detach()
        self.rotation: Tensor | None = None
        if layer.rotation is not None and layer.in_channels % 2**layer.rotation.order == 0:
            block = sylvester(layer.rotation.order).float()
            self.rotation = torch.block_diag(*[block] * (layer.in_channels // len(block)))

    def _pack(self, codes: Tensor) -> Tensor:
        parts = codes.flatten(1).chunk(self.per_byte)
        packed = torch.zeros_like(parts[0])
        for place, part in enumerate(parts):
            packed |= part << (place * self.bits)
        return packed

    def weight(self) -> Tensor:
        """The fake-quantized weight, from packed integers and low-rank factors."""
        spread = self.packed.unsqueeze(1).expand(-1, self.per_byte, -1)
        codes = (spread >> self.shifts.view(1, -1, 1)) & (2**self.bits - 1)
        codes = codes.transpose(0, 1).reshape(self.shape)
        weight = (codes - self.zero) * self.base_scale + self._update()
        levels = _clip(_round(weight / self.scale) + self.zero, 0, 2**self.bits - 1)
        return (levels - self.zero) * self.scale

    def _update(self) -> Tensor:
        if len(self.shape) == 2:
            identity = torch.eye(self.shape[1])
            return functional.linear(functional.linear(identity, self.lora_a), self.lora_b).t()
        factors = self.lora_b.flatten(1) @ self.lora_a.permute(2, 3, 0, 1)
        return factors.permute(2, 3, 0, 1)

    def _quantize(self, x: Tensor) -> Tensor:
        table = self.layer.activation
        low, high = table.limits
        scale = table.scale[self.layer.step.row]
        return _clip(_round(x / scale), low, high) * scale

    def forward(self, x: Tensor) -> Tensor:
        """Output of the layer."""
        weight = self.weight()
        if self.rotation is None or self.layer.rotation_of(x) is None:
            return self.layer._operate(self._quantize(x), weight)
        rows = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
        flat = rows.reshape(-1, rows.shape[-1])
        flat = self._quantize(flat @ self.rotation) @ self.rotation
        rows = flat.view(rows.shape)
        rows = rows.permute(0, 3, 1, 2) if x.dim() == 4 else rows
        return self.layer._operate(rows, weight)


def released_form(student: Student) -> Student:
    """The student with every low-bit layer in the released form; other weights are shared."""
    layers = student.low_bit_layers()
    instead: dict[int, object] = {id(layer): ReleasedLayer(layer) for layer in layers.values()}
    shared = {id(p): p for p in [*student.parameters(), *student.buffers()]}
    network = copy.deepcopy(student.network, {**shared, **instead, id(student.step): student.step})
    return Student(network, student.step, student.options, student.request)
