"""Single objects on a stage: ball, cube, ring, star; and two patterns: checker, stripes."""

import numpy as np

from hqdm_bench.models.mini import scene_fields as field
from hqdm_bench.models.mini.scene_canvas import Array, Canvas, Draws, hsv, mix

__all__ = ["ball", "checker", "cube", "ring", "star", "stripes"]

BLACK = np.zeros((1, 3, 1, 1), np.float32)
WHITE = np.ones((1, 3, 1, 1), np.float32)


def stage(canvas: Canvas, draws: Draws, horizon: Array, hue: Array) -> None:
    """Pale wall and floor whose tint complements the object's hue."""
    tint = hue + 0.5 + draws.uniform(-0.15, 0.15)
    saturation, value = draws.uniform(0.05, 0.4), draws.uniform(0.6, 0.95)
    wall = hsv(tint, saturation, value)
    canvas.gradient(wall, mix(wall, WHITE, 0.35))
    floor = hsv(tint + draws.uniform(-0.1, 0.1), saturation * 0.8, value * 0.72)
    depth = np.clip((horizon - canvas.y) / 1.4, 0, 1)[:, None]
    canvas.fill(canvas.y - horizon + 0 * canvas.x, mix(floor, 0.78 * floor, depth), 0.03)


def shadow(canvas: Canvas, x: Array, y: Array, width: Array, height: Array) -> None:
    """Soft dark ellipse at (x, y)."""
    blurred = canvas.cover(field.ellipse(canvas.x - x, canvas.y - y, width, height), 0.18)
    canvas.paint(0.45 * blurred, BLACK)


def ball(canvas: Canvas, draws: Draws) -> None:
    """Shaded ball with a highlight, lying on a floor."""
    hue, radius = draws.uniform(0, 1), draws.uniform(0.42, 0.68)
    stage(canvas, draws, draws.uniform(-0.5, -0.05), hue)
    x = canvas.x - draws.uniform(-0.25, 0.25)
    y = canvas.y - draws.uniform(-0.18, 0.1)
    side = draws.sign()
    shadow(canvas, canvas.x - x - side * 0.12, canvas.y - y - radius * 0.95, radius, radius * 0.25)
    height = np.sqrt(np.clip(1 - (x * x + y * y) / radius**2, 0, 1))
    light_x, light_y = -side * draws.uniform(0.3, 0.6), draws.uniform(0.35, 0.65)
    light_z = np.sqrt(1 - np.minimum(light_x**2 + light_y**2, 0.8))
    lambert = np.clip((light_x * x + light_y * y) / radius + light_z * height, 0, 1)
    colour = hsv(hue, draws.uniform(0.7, 0.95), draws.uniform(0.8, 1.0))
    shaded = colour * (0.28 + 0.78 * lambert)[:, None]
    canvas.fill(field.disc(x, y, radius), mix(shaded, WHITE, 0.9 * (lambert**16)[:, None]))


def cube(canvas: Canvas, draws: Draws) -> None:
    """Cube seen from above at a corner: three flat faces of different brightness."""
    hue, size = draws.uniform(0, 1), draws.uniform(0.36, 0.5)
    stage(canvas, draws, draws.uniform(0.0, 0.4), hue)
    x = canvas.x - draws.uniform(-0.15, 0.15)
    y = canvas.y - draws.uniform(-0.15, 0.1)
    yaw, pitch = draws.uniform(0.45, 1.1), draws.uniform(0.4, 0.65)
    right = size * np.cos(yaw), size * np.sin(yaw) * np.sin(pitch)
    front = size * np.sin(yaw), -size * np.cos(yaw) * np.sin(pitch)
    up = 0 * size, size * np.cos(pitch)
    shadow(canvas, canvas.x - x + 0.1, canvas.y - y - up[1], 1.7 * size, 0.75 * size)
    colour = hsv(hue, draws.uniform(0.6, 0.9), draws.uniform(0.85, 1.0))
    lit = draws.happens(0.5)
    light, dark = draws.uniform(0.68, 0.78), draws.uniform(0.4, 0.5)
    left_light, right_light = mix(light, dark, lit), mix(dark, light, lit)
    top = field.parallelogram(x, y - up[1], right, front)
    left = field.parallelogram(x + right[0], y + right[1], front, up)
    facing = field.parallelogram(x - front[0], y - front[1], right, up)
    canvas.fill(left, colour * left_light[:, None])
    canvas.fill(facing, colour * right_light[:, None])
    canvas.fill(top, mix(colour, WHITE, 0.15))


def ring(canvas: Canvas, draws: Draws) -> None:
    """Tilted torus on a plain ground, shaded across its tube."""
    hue, radius = draws.uniform(0, 1), draws.uniform(0.5, 0.68)
    ground = hsv(hue + draws.uniform(0.35, 0.65), draws.uniform(0.15, 0.5), draws.uniform(0.3, 0.9))
    canvas.gradient(ground, mix(ground, WHITE, draws.uniform(0.1, 0.35)[:, None]))
    tube = draws.uniform(0.13, 0.22)
    x, y = field.rotate(
        canvas.x - draws.uniform(-0.12, 0.12),
        canvas.y - draws.uniform(-0.12, 0.12),
        draws.uniform(0, np.pi),
    )
    squash = draws.uniform(0.62, 1.0)
    across = field.ellipse(x, y, radius, radius * squash)
    thickness = tube * (0.75 + 0.25 * squash)
    dark = canvas.cover(np.abs(field.ellipse(x - 0.06, y + 0.1, radius, radius * squash)), 0.3)
    canvas.paint(0.35 * dark, BLACK)
    side = np.clip(across / thickness, -1, 1)
    angle = np.arctan2(y, x) - draws.uniform(-np.pi, np.pi)
    light = 0.62 + 0.3 * np.sqrt(1 - side * side) + 0.25 * side * np.cos(angle)
    colour = hsv(hue, draws.uniform(0.6, 0.95), draws.uniform(0.85, 1.0))
    canvas.fill(np.abs(across) - thickness, np.clip(colour * light[:, None], 0, 1))


def star(canvas: Canvas, draws: Draws) -> None:
    """Bevelled five-pointed star on a deep ground."""
    hue = draws.uniform(0, 1)
    ground = hsv(hue + draws.uniform(0.4, 0.6), draws.uniform(0.5, 0.9), draws.uniform(0.15, 0.45))
    canvas.gradient(ground, mix(ground, hsv(hue, 0.4 + 0 * hue, 0.7 + 0 * hue), 0.3))
    size, inner = draws.uniform(0.65, 0.9), draws.uniform(0.4, 0.5)
    x = canvas.x - draws.uniform(-0.12, 0.12)
    y = canvas.y - draws.uniform(-0.12, 0.12)
    turn = draws.uniform(-0.6, 0.6)
    along, across, _ = field.fold(*field.rotate(y, -x, turn + np.pi), 5)
    corner = size * inner * np.cos(np.pi / 5), size * inner * np.sin(np.pi / 5)
    edge = field.half_plane(along, np.abs(across), (size, 0 * size), corner)
    colour = hsv(hue, draws.uniform(0.35, 0.85), draws.uniform(0.9, 1.0))
    facet = 0.5 + 0.5 * np.clip(across / canvas.pixel, -1, 1)
    canvas.paint(0.3 * canvas.cover(edge - 0.04, 0.25), WHITE)
    canvas.fill(edge, colour * (0.68 + 0.32 * facet)[:, None])


def checker(canvas: Canvas, draws: Draws) -> None:
    """Turned checkerboard of two contrasting colours."""
    first, second = contrasting(draws)
    x, y = field.rotate(canvas.x, canvas.y, draws.uniform(0, np.pi / 2))
    period = draws.uniform(0.3, 0.5)
    columns = field.wave(x + draws.uniform(0, 1), period)
    rows = field.wave(y + draws.uniform(0, 1), period)
    canvas.image[:] = first
    even = np.maximum(columns, rows), np.maximum(-columns, -rows)
    canvas.fill(np.minimum(*even), second)
    vignette(canvas, draws)


def stripes(canvas: Canvas, draws: Draws) -> None:
    """Turned, slightly waved stripes of two colours."""
    first, second = contrasting(draws)
    x, y = field.rotate(canvas.x, canvas.y, draws.uniform(0, np.pi))
    bend = draws.uniform(0, 0.12) * np.sin(draws.uniform(1.5, 3.5) * y + draws.uniform(0, 6))
    canvas.image[:] = first
    canvas.fill(field.wave(x + bend + draws.uniform(0, 1), draws.uniform(0.2, 0.4)), second)
    vignette(canvas, draws)


def contrasting(draws: Draws) -> tuple[Array, Array]:
    """A dark saturated and a light colour."""
    hue = draws.uniform(0, 1)
    dark = hsv(hue, draws.uniform(0.5, 1.0), draws.uniform(0.25, 0.7))
    light = hsv(hue + draws.uniform(0.2, 0.8), draws.uniform(0.1, 0.5), draws.uniform(0.85, 1.0))
    return dark, light


def vignette(canvas: Canvas, draws: Draws) -> None:
    """Light falling off towards one side, so that patterns are not flat."""
    slope_x, slope_y = draws.uniform(-0.18, 0.18), draws.uniform(-0.18, 0.18)
    canvas.image *= (0.9 + slope_x * canvas.x + slope_y * canvas.y)[:, None]
