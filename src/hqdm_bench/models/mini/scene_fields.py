"""Signed distance fields of the shapes that scenes are drawn from.

Every function takes coordinates that broadcast to (N, R, R) and per-image parameters (N, 1, 1) (or
plain numbers) and returns a field that is negative inside the shape. Distances are exact near the
boundary to first order, which is what antialiasing needs.
"""

import numpy as np

from hqdm_bench.models.mini.scene_canvas import Array

__all__ = [
    "arch", "box", "disc", "ellipse", "fold", "half_plane", "parallelogram", "rotate", "segment",
    "triangle", "wave",
]  # fmt: skip

Value = Array | float


def rotate(x: Array, y: Array, angle: Value) -> tuple[Array, Array]:
    """Coordinates in a frame turned by ``angle`` (radians, counter-clockwise)."""
    cosine, sine = np.cos(angle, dtype=np.float32), np.sin(angle, dtype=np.float32)
    return cosine * x + sine * y, cosine * y - sine * x


def disc(x: Array, y: Array, radius: Value) -> Array:
    """Disc about the origin."""
    return np.sqrt(x * x + y * y) - radius


def ellipse(x: Array, y: Array, width: Value, height: Value) -> Array:
    """Ellipse about the origin with the given half axes."""
    level = np.sqrt((x / width) ** 2 + (y / height) ** 2)
    slope = np.sqrt((x / width**2) ** 2 + (y / height**2) ** 2) + np.float32(1e-6)
    return level * (level - 1) / slope


def box(x: Array, y: Array, width: Value, height: Value) -> Array:
    """Axis-parallel rectangle about the origin with the given half sides."""
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def half_plane(
    x: Array, y: Array, first: tuple[Value, Value], second: tuple[Value, Value]
) -> Array:
    """Left side of the directed line from ``first`` to ``second``."""
    dx, dy = second[0] - first[0], second[1] - first[1]
    length = np.sqrt(np.asarray(dx * dx + dy * dy, np.float32))
    return (dy * (x - first[0]) - dx * (y - first[1])) / length


def triangle(
    x: Array,
    y: Array,
    first: tuple[Value, Value],
    second: tuple[Value, Value],
    third: tuple[Value, Value],
) -> Array:
    """Triangle with counter-clockwise corners."""
    edges = half_plane(x, y, first, second), half_plane(x, y, second, third)
    return np.maximum(np.maximum(*edges), half_plane(x, y, third, first))


def parallelogram(
    x: Array,
    y: Array,
    first: tuple[Value, Value],
    second: tuple[Value, Value],
) -> Array:
    """Parallelogram about the origin, spanned by two half edge vectors."""
    (ax, ay), (bx, by) = first, second
    area = np.asarray(ax * by - ay * bx, np.float32)
    along_first, along_second = (x * by - y * bx) / area, (ax * y - ay * x) / area
    first_height = np.abs(area) / np.sqrt(np.asarray(bx * bx + by * by, np.float32))
    second_height = np.abs(area) / np.sqrt(np.asarray(ax * ax + ay * ay, np.float32))
    return np.maximum(
        (np.abs(along_first) - 1) * first_height, (np.abs(along_second) - 1) * second_height
    )


def segment(x: Array, y: Array, end_x: Value, end_y: Value, radius: Value) -> Array:
    """Line with round ends from the origin to (end_x, end_y)."""
    length = np.asarray(end_x * end_x + end_y * end_y, np.float32)
    along = np.clip((x * end_x + y * end_y) / length, 0, 1)
    return disc(x - along * end_x, y - along * end_y, radius)


def arch(x: Array, y: Array, width: Value, height: Value) -> Array:
    """Door or window with a round top: foot at y = 0, top of the arch at y = ``height``."""
    body = np.maximum(np.abs(x) - width, np.maximum(-y, y - (height - width)))
    return np.minimum(body, np.maximum(disc(x, y - (height - width), width), -y))


def fold(x: Array, y: Array, folds: Value) -> tuple[Array, Array, Array]:
    """Fold the plane onto one of ``folds`` equal sectors about the positive x axis.

    Returns:
        The folded coordinates (second one signed) and the number of the sector.
    """
    sector = np.float32(2 * np.pi) / folds
    angle = np.arctan2(y, x) + np.float32(np.pi)
    number = np.floor(angle / sector)
    within = angle - (number + np.float32(0.5)) * sector
    radius = np.sqrt(x * x + y * y)
    return radius * np.cos(within), radius * np.sin(within), number


def wave(position: Array, period: Value) -> Array:
    """Signed distance to the edges of stripes: negative on every second stripe of width period."""
    phase = (position / period) % 2
    return (np.abs(phase - np.float32(1)) - np.float32(0.5)) * period
