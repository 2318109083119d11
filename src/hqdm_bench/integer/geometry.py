"""What a layer multiplies: the shape of its product, without its numbers."""

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Geometry", "Kind"]

Kind = Literal["linear", "conv1d", "conv2d"]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation of a product with an ungrouped weight.

    A convolution over one axis is one over two whose first has length 1.

    Attributes:
        kind: of the layer.
        stride: along height and width.
        padding: zeros on both sides.
        dilation: of the kernel.
    """

    kind: Kind
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @classmethod
    def of(cls, layer_geometry: tuple[Any, ...] | None, kernel: tuple[int, ...]) -> "Geometry":
        """From the arguments of torch's convolutions, or None for a linear layer.

        Args:
            layer_geometry: stride, padding, dilation and groups.
            kernel: its size along each axis.

        Raises:
            ValueError: padding that is not the same on both sides.
        """
        if layer_geometry is None:
            return cls("linear")
        stride, padding, dilation, _ = layer_geometry
        if padding == "valid":
            padding = (0,) * len(kernel)
        elif padding == "same":
            totals = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
            if any(total % 2 for total in totals):
                raise ValueError("padding 'same' of an even kernel differs between the two sides")
            padding = tuple(total // 2 for total in totals)
        if len(kernel) == 1:
            return cls("conv1d", (1, *stride), (0, *padding), (1, *dilation))
        return cls("conv2d", tuple(stride), tuple(padding), tuple(dilation))

    def output_length(self, axis: int, length: int, kernel: int) -> int:
        """Entries of the output along height (0) or width (1).

        Args:
            axis: 0 or 1.
            length: of the input.
            kernel: size of the kernel.
        """
        reach = self.dilation[axis] * (kernel - 1) + 1
        return (length + 2 * self.padding[axis] - reach) // self.stride[axis] + 1
