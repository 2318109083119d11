"""Bit-widths as the paper writes them: W4A4 is ``w4a4``."""

import re
from dataclasses import dataclass
from typing import Self

from hqdm_bench.common.errors import BenchError

__all__ = ["ACTIVATION_BITS", "WEIGHT_BITS", "Bits"]

# Sixteen bits are for checks: a method at w16a16 must agree with full precision.
WEIGHT_BITS = (*range(2, 9), 16)
ACTIVATION_BITS = (*range(3, 9), 16)
FULL_PRECISION = 32


@dataclass(frozen=True, order=True)
class Bits:
    """Bits of weights and activations; 32/32 is full precision.

    Raises:
        BenchError: a width other than 2-8 or 16 (weights), 3-8 or 16 (activations).
    """

    weight: int
    activation: int

    def __post_init__(self) -> None:
        if self.full_precision:
            return
        if self.weight not in WEIGHT_BITS or self.activation not in ACTIVATION_BITS:
            raise BenchError(
                f"bit-width w{self.weight}a{self.activation} is not supported; weights take 2 to 8 "
                "bits or 16, activations 3 to 8 or 16, full precision is w32a32"
            )

    @property
    def full_precision(self) -> bool:
        """True for w32a32."""
        return self.weight == self.activation == FULL_PRECISION

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``w4a4``.

        Raises:
            BenchError: the text has another form, or the widths are not supported.
        """
        match = re.fullmatch(r"w(\d{1,2})a(\d{1,2})", text.strip().lower())
        if not match:
            raise BenchError(f"bit-width '{text}' is not of the form w4a4 (weights, activations)")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"w{self.weight}a{self.activation}"

    @property
    def label(self) -> str:
        """As in the paper's text: ``W4A4``."""
        return str(self).upper()
