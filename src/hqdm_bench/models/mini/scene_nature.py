"""Outdoor scenes without buildings: flower, sunset, tree; and the sky they share."""

import numpy as np

from hqdm_bench.models.mini import scene_fields as field
from hqdm_bench.models.mini.scene_canvas import Array, Canvas, Draws, hsv, mix

__all__ = ["flower", "meadow", "sky", "sunset", "tree"]

WHITE = np.ones((1, 3, 1, 1), np.float32)
SKIES = [(0.30, 0.55, 0.90), (0.45, 0.70, 0.95), (0.55, 0.62, 0.78), (0.36, 0.48, 0.80)]
GRASS = [(0.25, 0.55, 0.20), (0.40, 0.62, 0.22), (0.18, 0.45, 0.22), (0.55, 0.60, 0.25)]
BARK = [(0.42, 0.27, 0.15), (0.35, 0.24, 0.18), (0.50, 0.35, 0.22)]
FOLIAGE = [(0.12, 0.42, 0.15), (0.25, 0.52, 0.15), (0.80, 0.45, 0.12), (0.78, 0.22, 0.14),
           (0.85, 0.68, 0.18)]  # fmt: skip
SUNSETS = [(0.98, 0.55, 0.20), (0.98, 0.40, 0.28), (0.95, 0.45, 0.50), (1.00, 0.68, 0.30)]
DUSKS = [(0.30, 0.15, 0.42), (0.20, 0.18, 0.45), (0.45, 0.16, 0.35), (0.15, 0.22, 0.42)]


def sky(canvas: Canvas, draws: Draws, clouds: float) -> None:
    """Blue gradient, brighter at the horizon, with soft clouds."""
    top = draws.palette(SKIES)
    canvas.gradient(mix(top, WHITE, draws.uniform(0.4, 0.75)[:, None]), top)
    density = canvas.noise(draws.lattice(5)) + 0.6 * canvas.y + draws.uniform(-0.5, 0.1)
    canvas.paint(clouds * np.clip(1.5 * density, 0, 1), WHITE)


def meadow(canvas: Canvas, draws: Draws, horizon: Array) -> None:
    """Grass below a gently curved horizon."""
    bend = draws.uniform(-0.08, 0.08) * canvas.x * canvas.x
    distance = canvas.y - horizon - bend
    near, far = draws.palette(GRASS), draws.palette(GRASS)
    depth = np.clip(-distance, 0, 1)[:, None]
    canvas.fill(distance, mix(far, 0.75 * near, depth))
    canvas.texture(canvas.cover(distance), draws.lattice(6), 0.12)


def flower(canvas: Canvas, draws: Draws) -> None:
    """Blossom with five to eight petals seen from the front, over leaves."""
    back = draws.palette(GRASS)
    canvas.gradient(0.5 * back, mix(0.7 * back, WHITE, draws.uniform(0.0, 0.4)[:, None]))
    canvas.texture(np.ones_like(canvas.x), draws.lattice(6), 0.3)
    centre_x, centre_y = draws.uniform(-0.15, 0.15), draws.uniform(-0.05, 0.2)
    x, y = canvas.x - centre_x, canvas.y - centre_y
    stem = field.segment(x, y, draws.uniform(-0.3, 0.3), draws.uniform(-1.6, -1.3), 0.06)
    canvas.fill(stem, 0.8 * draws.palette([(0.25, 0.55, 0.15), (0.35, 0.60, 0.20)]))
    petals, size = draws.integer(5, 8), draws.uniform(0.6, 0.78)
    along, across, _ = field.fold(*field.rotate(x, y, draws.uniform(0, np.pi)), petals)
    width = size * draws.uniform(1.5, 1.9) / petals
    petal = field.ellipse(along - 0.55 * size, across, 0.47 * size, width)
    hue = draws.uniform(-0.35, 0.18)
    outer = hsv(hue, draws.uniform(0.3, 0.9), draws.uniform(0.9, 1.0))
    inner = hsv(hue + draws.uniform(-0.08, 0.08), draws.uniform(0.6, 1.0), draws.uniform(0.6, 0.9))
    tone = np.clip(along / size, 0, 1)
    ridge = 0.86 + 0.14 * np.clip(1 - np.abs(across) / (0.6 * width), 0, 1)
    canvas.fill(petal, mix(inner, outer, tone[:, None]) * ridge[:, None])
    heart, radius = draws.palette([(0.95, 0.75, 0.15), (0.45, 0.25, 0.10)]), size * 0.27
    shade = 1 - 0.35 * np.clip(field.disc(x - 0.03, y - 0.04, 0) / radius, 0, 1)
    canvas.fill(field.disc(x, y, radius), heart * shade[:, None])


def sunset(canvas: Canvas, draws: Draws) -> None:
    """Low sun over the sea with a glittering path below it."""
    warm, dusk, horizon = draws.palette(SUNSETS), draws.palette(DUSKS), draws.uniform(-0.4, 0.0)
    height = np.clip((canvas.y - horizon) / 1.1, 0, 1)
    canvas.image[:] = mix(warm, dusk, height[:, None])
    sun_x, sun_y = draws.uniform(-0.5, 0.5), horizon + draws.uniform(0.05, 0.4)
    radius = draws.uniform(0.2, 0.32)
    away = field.disc(canvas.x - sun_x, canvas.y - sun_y, 0)
    glow = mix(warm, WHITE, 0.45)
    clouds = np.clip(2 * canvas.noise(draws.lattice(6)) - draws.uniform(0.2, 0.8), 0, 1)
    veil = 0.6 * clouds * np.clip((canvas.y - horizon) / 0.5, 0, 1)
    canvas.paint(veil, mix(dusk, warm, 0.3))
    canvas.paint(0.7 * np.exp(-3 * np.clip(away - radius, 0, None)), glow)
    canvas.fill(away - radius, mix(glow, WHITE, 0.55))
    depth = np.clip((horizon - canvas.y) / 1.0, 0, 1)
    sea = mix(0.75 * mix(warm, dusk, 0.45), 0.45 * dusk, depth[:, None])
    mask = canvas.cover(canvas.y - horizon + 0 * canvas.x)
    canvas.paint(mask, sea)
    phase = draws.uniform(32, 52) * np.sqrt(depth + 0.05) + draws.uniform(0, 6)
    ripples = 0.55 + 0.45 * np.sin(phase)
    path = np.exp(-(((canvas.x - sun_x) / (radius * (0.5 + 1.1 * depth))) ** 2))
    canvas.paint(0.85 * mask * path * ripples, glow)


def tree(canvas: Canvas, draws: Draws) -> None:
    """One tree on a meadow: a round crown, or a conifer in a third of the images."""
    sky(canvas, draws, 0.6)
    horizon = draws.uniform(-0.65, -0.3)
    meadow(canvas, draws, horizon)
    x = canvas.x - draws.uniform(-0.25, 0.25)
    foot = horizon - draws.uniform(0.05, 0.2)
    y = canvas.y - foot
    size, light = draws.uniform(0.85, 1.1), draws.sign()
    canvas.paint(
        0.35 * canvas.cover(field.ellipse(x + light * 0.15, y, 0.5 * size, 0.1), 0.1), 0 * WHITE
    )
    trunk = draws.uniform(0.06, 0.11) * (1 + 0.5 * np.clip(0.3 - y, 0, 1))
    bark = draws.palette(BARK) * (1 - 0.3 * np.clip(-light * x / 0.1, -1, 1))[:, None]
    canvas.fill(np.maximum(np.abs(x) - trunk, np.maximum(-y, y - 0.8 * size)), bark)
    conifer = draws.happens(0.34)
    colour = draws.palette(FOLIAGE)
    needles = draws.palette([(0.08, 0.32, 0.18), (0.12, 0.38, 0.22)])
    crown = mix(round_crown(x, y, draws, size), conifer_crown(x, y, size), conifer)
    shade = 0.8 + 0.3 * np.clip((light * x + y - 0.9 * size) / (0.6 * size), -1, 1)
    shade = shade + 0.16 * canvas.noise(draws.lattice(8))
    canvas.fill(crown, np.clip(mix(colour, needles, conifer[:, None]) * shade[:, None], 0, 1))


def round_crown(x: Array, y: Array, draws: Draws, size: Array) -> Array:
    """Union of discs around a centre."""
    crown = field.disc(x, y - 0.95 * size, 0.38 * size)
    for turn in range(6):
        angle = turn * np.pi / 3 + draws.uniform(-0.4, 0.4)
        reach = size * draws.uniform(0.26, 0.38)
        lobe = field.disc(
            x - reach * np.cos(angle),
            y - 0.95 * size - 0.85 * reach * np.sin(angle),
            size * draws.uniform(0.2, 0.28),
        )
        crown = np.minimum(crown, lobe)
    return crown


def conifer_crown(x: Array, y: Array, size: Array) -> Array:
    """Three stacked triangles, narrower towards the top."""
    crown = np.float32(9.0) + 0 * x * y
    for foot, width, top in ((0.25, 0.52, 0.9), (0.62, 0.42, 1.25), (0.98, 0.3, 1.55)):
        corners = (-width * size, foot * size), (width * size, foot * size), (0 * size, top * size)
        crown = np.minimum(crown, field.triangle(x, y, *corners))
    return crown
