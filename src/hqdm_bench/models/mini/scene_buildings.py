"""Buildings and rooms: house, church, bedroom."""

import numpy as np

from hqdm_bench.models.mini import scene_fields as field
from hqdm_bench.models.mini.scene_canvas import Array, Canvas, Draws, hsv, mix
from hqdm_bench.models.mini.scene_nature import meadow, sky

__all__ = ["bedroom", "church", "house"]

BLACK = np.zeros((1, 3, 1, 1), np.float32)
WHITE = np.ones((1, 3, 1, 1), np.float32)
PLASTER = [(0.92, 0.86, 0.74), (0.85, 0.62, 0.48), (0.75, 0.30, 0.24), (0.93, 0.93, 0.90),
           (0.60, 0.72, 0.82), (0.95, 0.80, 0.45)]  # fmt: skip
STONE = [(0.86, 0.82, 0.72), (0.72, 0.68, 0.62), (0.94, 0.92, 0.88), (0.78, 0.60, 0.46)]
ROOFS = [(0.62, 0.24, 0.18), (0.40, 0.28, 0.24), (0.30, 0.33, 0.40), (0.50, 0.20, 0.24)]
SPIRES = [(0.30, 0.36, 0.42), (0.35, 0.52, 0.46), (0.48, 0.26, 0.20), (0.25, 0.28, 0.34)]
DOORS = [(0.40, 0.22, 0.12), (0.55, 0.15, 0.15), (0.18, 0.35, 0.28), (0.25, 0.28, 0.50)]
GLASS = [(0.55, 0.75, 0.90), (0.95, 0.85, 0.50), (0.30, 0.40, 0.55)]
WALLS = [(0.88, 0.82, 0.72), (0.62, 0.74, 0.82), (0.72, 0.80, 0.66), (0.86, 0.70, 0.68),
         (0.74, 0.68, 0.82), (0.90, 0.84, 0.60)]  # fmt: skip
PLANKS = [(0.55, 0.36, 0.22), (0.66, 0.48, 0.30), (0.40, 0.28, 0.22), (0.62, 0.56, 0.50)]
WOOD = [(0.42, 0.26, 0.16), (0.55, 0.38, 0.24), (0.30, 0.20, 0.16), (0.85, 0.82, 0.78)]


def house(canvas: Canvas, draws: Draws) -> None:
    """Front of a cottage: gable roof, chimney, door and two windows."""
    sky(canvas, draws, 0.6)
    foot = draws.uniform(-0.75, -0.5)
    meadow(canvas, draws, foot + draws.uniform(0.05, 0.3))
    x, y = canvas.x - draws.uniform(-0.15, 0.15), canvas.y - foot
    width, height = draws.uniform(0.48, 0.66), draws.uniform(0.6, 0.78)
    rise, eaves, side = draws.uniform(0.4, 0.6), draws.uniform(0.08, 0.16), draws.sign()
    roof, wall = draws.palette(ROOFS), draws.palette(PLASTER)
    stack = side * 0.55 * width
    canvas.fill(field.box(x - stack, y - height - 0.3, 0.07, 0.3), 0.75 * roof)
    lit = 0.93 + 0.1 * side * x / width
    canvas.fill(field.box(x, y - height / 2, width, height / 2), wall * lit[:, None])
    gable = field.triangle(
        x, y, (-width - eaves, height), (width + eaves, height), (0 * width, height + rise)
    )
    slope = 0.85 + 0.15 * np.clip((y - height) / rise, 0, 1)
    canvas.fill(gable, roof * slope[:, None])
    door = field.arch(x - draws.uniform(-0.1, 0.1), y, 0.12, draws.uniform(0.34, 0.42))
    canvas.fill(door, draws.palette(DOORS))
    glass, size = draws.palette(GLASS), draws.uniform(0.1, 0.13)
    for sign in (-1, 1):
        pane_x, pane_y = x - sign * 0.62 * width, y - 0.58 * height
        canvas.fill(field.box(pane_x, pane_y, size + 0.04, size + 0.04), WHITE)
        canvas.fill(field.box(pane_x, pane_y, size, size), glass)


def church(canvas: Canvas, draws: Draws) -> None:
    """Nave with a gabled roof and arched windows beside a tower with a spire and a cross."""
    sky(canvas, draws, 0.7)
    foot = draws.uniform(-0.8, -0.6)
    meadow(canvas, draws, foot + draws.uniform(0.05, 0.2))
    bushes(canvas, draws, foot)
    side, offset = draws.sign(), draws.uniform(0.34, 0.46)
    x, y = side * (canvas.x - draws.uniform(-0.08, 0.08)), canvas.y - foot
    wall, roof = draws.palette(STONE), draws.palette(ROOFS)
    nave(canvas, draws, x - 0.3 + offset * 0.3, y, wall, roof)
    tower(canvas, draws, x + offset, y, wall)


def bushes(canvas: Canvas, draws: Draws, foot: Array) -> None:
    """Dark round bushes along the horizon, behind the building."""
    colour = 0.8 * draws.palette([(0.16, 0.36, 0.16), (0.28, 0.42, 0.18), (0.42, 0.38, 0.16)])
    for centre in (-0.85, 0.85):
        x = canvas.x - centre - draws.uniform(-0.12, 0.12)
        y = canvas.y - foot - draws.uniform(0.1, 0.3)
        radius = draws.uniform(0.14, 0.3)
        shade = 0.85 + 0.35 * np.clip(y / radius, -1, 1)
        canvas.fill(field.ellipse(x, y, radius, 1.2 * radius), colour * shade[:, None])


def nave(canvas: Canvas, draws: Draws, x: Array, y: Array, wall: Array, roof: Array) -> None:
    """Long side of the nave with a row of windows and a sloping roof."""
    length, height = draws.uniform(0.5, 0.6), draws.uniform(0.5, 0.62)
    rise, slant = draws.uniform(0.28, 0.4), draws.uniform(0.06, 0.18)
    canvas.fill(field.box(x, y - height / 2, length, height / 2), 0.88 * wall)
    over, tilt = 0.05, np.clip((y - height) / rise, 0, 1)
    edge = np.abs(x) - (length + over) + (slant + over) * tilt
    inside = np.maximum(edge, np.maximum(height - 0.02 - y, y - height - rise))
    canvas.fill(inside, roof * (0.8 + 0.25 * tilt)[:, None])
    glass, half = draws.palette(GLASS), 0.055
    tall = draws.uniform(0.26, 0.32)
    for place in (-0.05, 0.32, 0.69):
        pane_x, pane_y = x - place * length, y - 0.16
        canvas.fill(field.arch(pane_x, pane_y + 0.025, half + 0.025, tall + 0.05), 0.62 * wall)
        canvas.fill(field.arch(pane_x, pane_y, half, tall), glass)


def tower(canvas: Canvas, draws: Draws, x: Array, y: Array, wall: Array) -> None:
    """Tower with a door, a bell window, a clock, a spire and a cross."""
    width, height = draws.uniform(0.19, 0.25), draws.uniform(0.82, 0.98)
    spire, rise = draws.palette(SPIRES), draws.uniform(0.34, 0.46)
    lit = 0.95 + 0.12 * x / width
    canvas.fill(field.box(x, y - height / 2, width, height / 2), np.clip(wall * lit[:, None], 0, 1))
    canvas.fill(field.box(x, y - height, width + 0.03, 0.025), 0.7 * wall)
    peak = height + rise
    cap = field.triangle(x, y, (-width - 0.05, height), (width + 0.05, height), (0 * width, peak))
    canvas.fill(cap, spire * (0.85 + 0.3 * np.clip(x / width, -1, 1))[:, None])
    gold = draws.palette([(0.95, 0.80, 0.30), (0.25, 0.22, 0.22), (0.90, 0.88, 0.85)])
    canvas.fill(field.box(x, y - peak - 0.07, 0.02, 0.1), gold)
    canvas.fill(field.box(x, y - peak - 0.09, 0.065, 0.02), gold)
    canvas.fill(field.arch(x, y, 0.1, draws.uniform(0.28, 0.34)), draws.palette(DOORS))
    canvas.fill(field.arch(x, y - height + 0.32, 0.07, 0.22), 0.35 * wall)
    face = field.disc(x, y - 0.5 * height, 0.075)
    canvas.paint(draws.happens(0.5) * canvas.cover(face), WHITE)
    canvas.paint(draws.happens(0.5) * canvas.cover(np.abs(face) - 0.01), 0.4 * wall)


def bedroom(canvas: Canvas, draws: Draws) -> None:
    """Bed against the back wall with pillow and blanket, window, picture and lamp."""
    floor = draws.uniform(-0.5, -0.3)
    wall = draws.palette(WALLS)
    canvas.gradient(0.85 * wall, np.clip(1.05 * wall, 0, 1))
    planks = draws.palette(PLANKS)
    depth = np.clip((floor - canvas.y) / 0.7, 0, 1)
    canvas.fill(canvas.y - floor + 0 * canvas.x, mix(planks, 0.75 * planks, depth[:, None]))
    canvas.fill(np.abs(canvas.y - floor) - 0.025 + 0 * canvas.x, mix(wall, WHITE, 0.6))
    side = draws.sign()
    x = side * canvas.x
    window(canvas, draws, x - draws.uniform(0.3, 0.5), canvas.y - draws.uniform(0.38, 0.5))
    picture(canvas, draws, x + draws.uniform(0.4, 0.6), canvas.y - draws.uniform(0.48, 0.6))
    bed_x = x + draws.uniform(0.0, 0.25)
    bed(canvas, draws, bed_x, canvas.y - floor + 0.25)
    lamp(canvas, draws, x - draws.uniform(0.72, 0.84), canvas.y - floor)


def window(canvas: Canvas, draws: Draws, x: Array, y: Array) -> None:
    """Bright window with a frame and, in most rooms, curtains."""
    width, height = draws.uniform(0.22, 0.32), draws.uniform(0.28, 0.38)
    canvas.fill(field.box(x, y, width + 0.05, height + 0.05), WHITE)
    light = draws.palette([(0.60, 0.80, 0.98), (0.98, 0.85, 0.60), (0.12, 0.16, 0.34)])
    level = np.clip(0.5 + 0.5 * y / height, 0, 1)[:, None]
    canvas.fill(field.box(x, y, width, height), mix(mix(light, WHITE, 0.4), light, level))
    canvas.fill(np.minimum(field.box(x, y, 0.02, height), field.box(x, y, width, 0.02)), WHITE)
    cloth = hsv(draws.uniform(0, 1), draws.uniform(0.3, 0.8), draws.uniform(0.5, 0.95))
    drawn, reach = draws.happens(0.7), width + 0.06
    folds = 0.85 + 0.15 * np.sin(38 * x)
    hang = field.box(np.abs(x) - reach, y + 0.06, draws.uniform(0.07, 0.12), height + 0.14)
    canvas.paint(drawn * canvas.cover(hang), cloth * folds[:, None])


def picture(canvas: Canvas, draws: Draws, x: Array, y: Array) -> None:
    """Framed picture: sky over a hill."""
    width, height = draws.uniform(0.14, 0.22), draws.uniform(0.12, 0.18)
    canvas.fill(field.box(x, y, width + 0.05, height + 0.05), draws.palette(WOOD))
    hue = draws.uniform(0, 1)
    canvas.fill(field.box(x, y, width, height), hsv(hue, 0.3 + 0 * hue, 0.95 + 0 * hue))
    hill = np.maximum(field.box(x, y, width, height), field.disc(x - 0.05, y + 0.2, 0.2))
    canvas.fill(hill, hsv(hue + draws.uniform(0.2, 0.5), 0.6 + 0 * hue, 0.6 + 0 * hue))


def bed(canvas: Canvas, draws: Draws, x: Array, y: Array) -> None:
    """Bed seen from the side: headboard, mattress, pillow, blanket, legs; y = 0 at its feet."""
    length, top = draws.uniform(0.58, 0.7), draws.uniform(0.4, 0.5)
    wood, sheet = draws.palette(WOOD), draws.palette([(0.95, 0.94, 0.90), (0.85, 0.88, 0.94)], 0.03)
    shade = canvas.cover(field.ellipse(x, y, length + 0.1, 0.12), 0.15)
    canvas.paint(0.4 * shade, BLACK)
    canvas.fill(field.box(np.abs(x) - length + 0.05, y - 0.1, 0.05, 0.12), 0.8 * wood)
    high = draws.uniform(0.34, 0.48)
    canvas.fill(field.box(x + length, y - (top + high) / 2, 0.06, (top + high) / 2), wood)
    canvas.fill(field.box(x - length, y - (top + 0.12) / 2, 0.05, (top + 0.12) / 2), wood)
    canvas.fill(field.box(x, y - 0.16, length, 0.07), 0.9 * wood)
    canvas.fill(field.box(x, y - (top + 0.2) / 2, length, (top - 0.2) / 2), 0.92 * sheet)
    pillow = field.ellipse(x + length - 0.24, y - top - 0.04, 0.19, 0.1)
    canvas.fill(pillow, mix(sheet, WHITE, 0.5))
    hue, start = draws.uniform(0, 1), draws.uniform(-0.3, 0.0)
    blanket = hsv(hue, draws.uniform(0.45, 0.9), draws.uniform(0.55, 0.95))
    middle, half = (length - 0.04 + start * 1) / 2, (length - 0.04 - start) / 2
    cloth = field.box(x - middle, y - top + 0.13, half, 0.2)
    light = 0.8 + 0.3 * np.clip((y - top + 0.1) / 0.2, -0.6, 0.6)
    canvas.fill(cloth, blanket * light[:, None])
    striped = draws.happens(0.4) * canvas.cover(cloth) * canvas.cover(field.wave(x, 0.13))
    canvas.paint(0.45 * striped, WHITE)


def lamp(canvas: Canvas, draws: Draws, x: Array, y: Array) -> None:
    """Bedside table with a lamp that glows in half of the rooms; y = 0 where wall meets floor."""
    wood, lit = draws.palette(WOOD), draws.happens(0.5)
    tall = draws.uniform(0.18, 0.28)
    canvas.fill(field.box(x, y - tall / 2 + 0.1, 0.14, tall / 2 + 0.1), 0.8 * wood)
    canvas.fill(field.box(x, y - tall, 0.17, 0.025), wood)
    glow = np.exp(-3.5 * field.disc(x, y - tall - 0.28, 0))
    canvas.paint(0.6 * lit * glow, np.asarray([1.0, 0.9, 0.6], np.float32).reshape(1, 3, 1, 1))
    canvas.fill(field.box(x, y - tall - 0.1, 0.025, 0.1), 0.5 * wood)
    flare = 0.12 - 0.2 * (y - tall - 0.28)
    shade = np.maximum(np.abs(x) - flare, np.abs(y - tall - 0.28) - 0.1)
    cloth = draws.palette([(0.95, 0.88, 0.65), (0.80, 0.40, 0.35), (0.50, 0.62, 0.72)])
    canvas.fill(shade, mix(0.8 * cloth, mix(cloth, WHITE, 0.5), lit[:, None]))
