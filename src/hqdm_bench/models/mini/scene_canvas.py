"""Canvas of the procedural scenes: random draws, antialiased masks, colours, value noise.

Everything is vectorised over a batch of N images. Per-image scalars have shape (N, 1, 1), colours
(N, 3, 1, 1), fields (N, R, R). Coordinates run over [-1, 1], x to the right and y upwards.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Canvas", "Draws", "hsv", "mix"]

Array = NDArray[np.floating[Any]]  # float32 throughout


class Draws:
    """Hands out the uniform random numbers of a batch, column by column.

    Args:
        uniforms: (N, K) in [0, 1); row i belongs to image i alone.
    """

    def __init__(self, uniforms: Array) -> None:
        self._uniforms = uniforms
        self._used = 0

    def uniform(self, low: float, high: float) -> Array:
        """(N, 1, 1) uniform in [low, high)."""
        return (low + (high - low) * self._take(1)).reshape(-1, 1, 1).astype(np.float32)

    def sign(self) -> Array:
        """(N, 1, 1) of -1 or 1."""
        return np.where(self._take(1) < 0.5, -1.0, 1.0).reshape(-1, 1, 1).astype(np.float32)

    def happens(self, probability: float) -> Array:
        """(N, 1, 1) of 1 with the given probability, else 0."""
        return (self._take(1) < probability).reshape(-1, 1, 1).astype(np.float32)

    def integer(self, low: int, high: int) -> Array:
        """(N, 1, 1) of whole numbers in [low, high]."""
        return np.floor(self.uniform(low, high + 1))

    def palette(self, colours: Sequence[tuple[float, float, float]], jitter: float = 0.06) -> Array:
        """(N, 3, 1, 1) colour drawn from a list of RGB colours, each channel jittered."""
        table = np.asarray(colours, np.float32)
        chosen = table[(self._take(1)[:, 0] * len(table)).astype(np.int64)]
        shift = jitter * (2 * self._take(3) - 1)
        return np.clip(chosen + shift, 0, 1).reshape(-1, 3, 1, 1).astype(np.float32)

    def lattice(self, nodes: int) -> Array:
        """(N, nodes, nodes) uniform in [-1, 1), the knots of a value noise."""
        return (2 * self._take(nodes * nodes) - 1).reshape(-1, nodes, nodes).astype(np.float32)

    def _take(self, count: int) -> Array:
        if self._used + count > self._uniforms.shape[1]:
            raise IndexError(f"a scene drew more than {self._uniforms.shape[1]} numbers")
        self._used += count
        return self._uniforms[:, self._used - count : self._used]


class Canvas:
    """N images of resolution R being painted from back to front.

    Attributes:
        x: (1, 1, R) horizontal coordinates of the pixel centres.
        y: (1, R, 1) vertical coordinates of the pixel centres, upwards.
        image: (N, 3, R, R) in [0, 1].
    """

    def __init__(self, count: int, resolution: int) -> None:
        centres = ((2 * np.arange(resolution) + 1) / resolution - 1).astype(np.float32)
        self.x: Array = centres.reshape(1, 1, -1)
        self.y: Array = centres[::-1].reshape(1, -1, 1).copy()
        self.pixel = np.float32(2 / resolution)
        self.image: Array = np.zeros((count, 3, resolution, resolution), np.float32)

    def cover(self, distance: Array, softness: float = 0.0) -> Array:
        """Coverage of a pixel by the region ``distance`` < 0: 1 inside, 0 outside, a ramp between.

        Args:
            distance: signed distance in canvas units, negative inside.
            softness: extra width of the ramp, in canvas units.
        """
        width = self.pixel + np.float32(softness)
        return np.clip(np.float32(0.5) - distance / width, 0, 1)

    def paint(self, mask: Array, colour: Array) -> None:
        """Composite a colour (N, 3, 1, 1) or (N, 3, R, R) over the image where the mask is 1."""
        opacity = np.broadcast_to(mask, self.image[:, 0].shape)[:, None]
        self.image += opacity * (colour - self.image)

    def fill(self, distance: Array, colour: Array, softness: float = 0.0) -> None:
        """Paint the region of a signed distance."""
        self.paint(self.cover(distance, softness), colour)

    def gradient(self, bottom: Array, top: Array) -> None:
        """Fill the whole canvas with a vertical gradient between two colours."""
        self.image[:] = mix(bottom, top, (self.y[:, None] + 1) / 2)

    def noise(self, lattice: Array) -> Array:
        """(N, R, R) smooth noise in [-1, 1], interpolated from (N, G, G) knots over the canvas."""
        nodes = lattice.shape[-1]
        position = (self.x.reshape(-1) + 1) / 2 * (nodes - 1)
        left = np.minimum(position.astype(np.int64), nodes - 2)
        part = position - left
        smooth = part * part * (3 - 2 * part)
        weights = np.zeros((len(position), nodes), np.float32)
        weights[np.arange(len(position)), left] = 1 - smooth
        weights[np.arange(len(position)), left + 1] = smooth
        return np.matmul(np.matmul(weights, lattice), weights.T)

    def texture(self, mask: Array, lattice: Array, strength: float) -> None:
        """Modulate the brightness by value noise where the mask is 1."""
        self.image *= 1 + np.float32(strength) * (mask * self.noise(lattice))[:, None]


def mix(first: Array, second: Array, weight: Array | float) -> Array:
    """Linear interpolation: ``first`` where the weight is 0, ``second`` where it is 1."""
    return first + (second - first) * weight


def hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """(N, 3, 1, 1) colours in [0, 1] from (N, 1, 1) hue (in turns, any real), saturation, value."""
    offsets = np.asarray([0.0, 2 / 3, 1 / 3], np.float32).reshape(1, 3, 1, 1)
    wheel = np.abs(((hue[:, None] + offsets) % 1) * 6 - 3) - 1
    pure = np.clip(wheel, 0, 1)
    return (value[:, None] * (1 + saturation[:, None] * (pure - 1))).astype(np.float32)
