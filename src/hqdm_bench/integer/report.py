"""What a conversion did, layer by layer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from hqdm_bench.integer.layer import IntegerLayer

__all__ = ["ConversionReport", "LayerReport", "describe"]


@dataclass(frozen=True)
class LayerReport:
    """One quantized layer of a student.

    Attributes:
        name: in the network.
        integer: whether it multiplies integers now; if not, it is the fake-quantized layer still.
        reason: why not; empty if it does.
        kind: linear, conv1d or conv2d.
        weight_bits: of a stored weight code.
        levels: number of codes of the input.
        rotation: such as "channel 32", "width 8", or "none"; with its transform unless it is that
            of the matrix.
        container: how codes are held, "uint8", "int8", or two digits of these.
        weight_digits: int8 digits of the weight, 1 or 2.
        wide_rows: output channels that need the second one.
        bound: no int32 accumulator exceeds it in magnitude.
    """

    name: str
    integer: bool
    reason: str = ""
    kind: str = ""
    weight_bits: int = 0
    levels: int = 0
    rotation: str = "none"
    container: str = "uint8"
    weight_digits: int = 1
    wide_rows: int = 0
    bound: int = 0


@dataclass(frozen=True)
class ConversionReport:
    """A whole student.

    Attributes:
        backend: name of the kernels.
        why: why these.
        layers: every quantized layer, in module order.
        fake_attention: attentions whose quantized products are computed as the student computes
            them, fake-quantized in floating point.
    """

    backend: str
    why: str
    layers: tuple[LayerReport, ...]
    fake_attention: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[LayerReport, ...]:
        """Layers that are fake-quantized still."""
        return tuple(layer for layer in self.layers if not layer.integer)

    def asdict(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    def summary(self) -> str:
        """One line, and one for each layer that was kept."""
        done = len(self.layers) - len(self.kept)
        wide = sum(layer.weight_digits > 1 for layer in self.layers)
        largest = max((layer.bound for layer in self.layers), default=0)
        head = (
            f"{done} of {len(self.layers)} quantized layers are integer ({self.backend}: "
            f"{self.why}); {wide} need a second weight digit; no accumulator exceeds {largest:,}"
        )
        if self.fake_attention:
            head += f"; the products of {len(self.fake_attention)} attentions are fake-quantized"
        return "\n".join([head, *(f"  kept {each.name}: {each.reason}" for each in self.kept)])


def describe(layers: Mapping[str, IntegerLayer]) -> tuple[LayerReport, ...]:
    """Reports of integer layers; checks the accumulators of every layer on the way.

    A linear layer whose rotation depends on the number of axes of its input is described, and
    checked, as rotated.

    Raises:
        BenchError: an accumulator could overflow.
    """
    return tuple(_describe(name, layer) for name, layer in layers.items())


def _describe(name: str, layer: IntegerLayer) -> LayerReport:
    byte = "int8" if layer.kernel.codes_dtype == torch.int8 else "uint8"
    spec, text, container = layer.spec, "none", byte
    rotation = spec.rotation
    if rotation is not None:
        along_width = not spec.linear and not rotation.foldable
        if along_width:
            text = f"width, up to {2**rotation.order}"
            largest = max(max(-layer.grid(r).low, layer.grid(r).high) for r in layer.rows)
            if 2 * largest * 2**rotation.order > 255:
                container = f"two {byte} digits where the block is wide, else {byte}"
        else:
            order = rotation.block_order(spec.shape[1], 2)
            text = f"channel {2**order}" if order else "none"
        if rotation.transform != "matrix" and text != "none":
            text += f", {rotation.transform}"
    # Made here and thrown away: they would otherwise be held twice, ready for every order.
    products = [layer.make_product(order, 0) for order in sorted(layer.possible_orders())]
    digits = [digit for product in products for digit, _ in product.parts]
    return LayerReport(
        name,
        True,
        kind=spec.geometry.kind,
        weight_bits=spec.weight_bits,
        levels=spec.high - spec.low + 1,
        rotation=text,
        container=container,
        weight_digits=max(len(product.parts) for product in products),
        wide_rows=max((len(d.rows) for d in digits if d.rows is not None), default=0),
        bound=max(product.bound for product in products),
    )
