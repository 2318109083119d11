"""Which layer inputs are rotated, along which axis and in what blocks."""

from dataclasses import dataclass
from typing import Literal

from hqdm_bench.hadamard import Transform, divides, largest_order

__all__ = ["Rotation"]


@dataclass(frozen=True)
class Rotation:
    """Choice of rotated inputs.

    Attributes:
        order: k of the Hadamard block 2^k.
        scope: ``official`` rotates inputs with two axes (vectors) and four (images), as the
            released HQ-DM; every linear layer of a transformer sees three. ``every_linear`` rotates
            inputs with any number of axes.
        axis: of an image: its ``channel``s, or its ``width`` (the text of HQ-DM), which no weight
            can take up. A linear layer's input is rotated along its channels, the last axis.
        smaller_block: take the largest block that divides the axis where 2^k does not, instead of
            leaving the input as it is.
        transform: how the product with the Hadamard matrix is computed: ``matrix`` as the library
            of the device does, ``butterfly`` in a stated order that is the same on every device.
    """

    order: int = 5
    scope: Literal["official", "every_linear"] = "official"
    axis: Literal["channel", "width"] = "channel"
    smaller_block: bool = False
    transform: Transform = "matrix"

    @property
    def foldable(self) -> bool:
        """Whether the rotation back can be folded into a weight."""
        return self.axis == "channel"

    def dim(self, linear: bool) -> int:
        """Axis of the input that is rotated."""
        return -1 if linear or self.axis == "width" else 1

    def block_order(self, length: int, rank: int) -> int:
        """K of the blocks for an input; 0 leaves it as it is.

        Args:
            length: of the rotated axis.
            rank: number of axes of the input.
        """
        if self.scope == "official" and rank not in (2, 4):
            return 0
        if self.smaller_block:
            return largest_order(length, self.order)
        return self.order if divides(length, self.order) else 0
