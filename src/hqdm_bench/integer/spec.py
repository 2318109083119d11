"""What an integer layer is, without its numbers: enough to build it again from a file."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from hqdm_bench.common.errors import BenchError
from hqdm_bench.integer.geometry import Geometry
from hqdm_bench.quantization import Rotation

__all__ = ["LayerSpec"]


@dataclass(frozen=True)
class LayerSpec:
    """Constants of a layer.

    Attributes:
        geometry: of its product.
        shape: of its weight, (c_out, c_in, ...).
        weight_bits: of a weight code.
        weight_steps: step sizes and codes for every step, or None if the steps share them.
        low: lowest code of the input, before a zero-point is subtracted.
        high: highest.
        integer_zero: zero-points are rounded where they are used.
        rotation: which inputs are rotated, or None.
        weight_is_rotated: the weight belongs to rotated inputs already (Double Hadamard).
    """

    geometry: Geometry
    shape: tuple[int, ...]
    weight_bits: int
    weight_steps: int | None
    low: int
    high: int
    integer_zero: bool
    rotation: Rotation | None
    weight_is_rotated: bool

    @property
    def linear(self) -> bool:
        """Whether the channels are the last axis of the input."""
        return self.geometry.kind == "linear"

    def asdict(self) -> dict[str, Any]:
        """For the header of a file."""
        return asdict(self)

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Self:
        """From the header of a file.

        Raises:
            BenchError: an entry is missing or of another version.
        """
        try:
            shape = entry["geometry"]
            geometry = Geometry(
                shape["kind"],
                tuple(shape["stride"]),
                tuple(shape["padding"]),
                tuple(shape["dilation"]),
            )
            rotation = entry["rotation"]
            fixed = {
                "geometry": geometry,
                "shape": tuple(entry["shape"]),
                "rotation": None if rotation is None else Rotation(**rotation),
            }
            return cls(**{**entry, **fixed})
        except (KeyError, TypeError) as error:
            raise BenchError(
                f"this packed student has a layer that this version cannot read ({error}); pack "
                "it again"
            ) from None
