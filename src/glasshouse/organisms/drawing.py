"""How are scenes drawn? As 72 x 72 pixels: nine cells of 24, each with an object, a sign, a badge or nothing.

    pixels = draw(scenes)        # uint8, N x 72 x 72 x 3

Sprites are drawn once, at eight times their size, and scaled down, so edges are smooth. Drawing a scene then blends a
few small squares, for many scenes at once (bench/world.py).
"""

from collections.abc import Callable
from functools import cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from glasshouse.data.images import StoredImage
from glasshouse.organisms.scenes import BACKGROUNDS, COLOURS, DOWNSTREAM_BACKGROUNDS, SHAPES, Array, Scenes

CELL = 24
SIDE = 3 * CELL
DIAMETERS = (12, 18)
_FINE = 8
_AT_ONCE = 512
_COLOURS = np.array(list(COLOURS.values()), np.int16)


def draw(scenes: Scenes) -> Array:
    """All scenes as pixels."""
    parts = [_draw(scenes[start : start + _AT_ONCE]) for start in range(0, len(scenes), _AT_ONCE)]
    return np.concatenate(parts)


def stored(pixels: Array) -> StoredImage:
    """One image, as a PNG in memory."""
    return StoredImage.png(Image.fromarray(pixels), compress_level=1)


def _draw(scenes: Scenes) -> Array:
    n = len(scenes)
    walls = _walls()[scenes.background, scenes.phase]
    canvas = np.clip(scenes.shade[:, None, None, :] + walls[..., None].astype(np.int16), 0, 255).astype(np.int16)
    cells = canvas.reshape(n, 3, CELL, 3, CELL, 3).transpose(0, 1, 3, 2, 4, 5)  # a view: N, row, column, y, x, colour
    masks = _masks()
    for slot in range(scenes.shape.shape[1]):
        rows = np.flatnonzero(scenes.shape[:, slot] >= 0)
        shape, size, shift = (field[rows, slot] for field in (scenes.shape, scenes.size, scenes.shift))
        alpha = masks[shape, size, shift[:, 0] + 2, shift[:, 1] + 2]
        _blend(cells, rows, scenes.cell[rows, slot], alpha, _COLOURS[scenes.colour[rows, slot], None, None])
        for kind, sprite in _signs().items():
            signed = rows[scenes.sign[rows, slot] == kind]
            _blend(cells, signed, scenes.cell[signed, slot], *sprite)
    for kind, sprite in _badges().items():
        rows = np.flatnonzero(scenes.badge == kind)
        _blend(cells, rows, scenes.badge_cell[rows], *sprite)
    return canvas.astype(np.uint8)


def _blend(cells: Array, rows: Array, cell: Array, alpha: Array, colour: Array) -> None:
    place = (rows, cell // 3, cell % 3)
    under = cells[place]
    cells[place] = under + (alpha[..., None].astype(np.int32) * (colour - under) + 127) // 255


@cache
def _masks() -> Array:
    """shape, size, shift down, shift right, y, x: the coverage of a pixel by the object, of 255."""
    masks = np.zeros((len(SHAPES), len(DIAMETERS), 5, 5, CELL, CELL), np.uint8)
    for shape, name in enumerate(SHAPES):
        for size, diameter in enumerate(DIAMETERS):
            centred = _rendered(lambda pen, name=name, diameter=diameter: _shape(pen, name, diameter / 2 * _FINE))
            for down in range(5):
                for right in range(5):
                    masks[shape, size, down, right] = np.roll(centred, (down - 2, right - 2), (0, 1))
    return masks


def _rendered(paint: Callable[[ImageDraw.ImageDraw], None]) -> Array:
    canvas = Image.new("L", (CELL * _FINE, CELL * _FINE))
    paint(ImageDraw.Draw(canvas))
    return np.asarray(canvas.resize((CELL, CELL), Image.Resampling.BOX))


def _shape(pen: ImageDraw.ImageDraw, name: str, radius: float) -> None:
    middle = CELL * _FINE / 2

    def polygon(*points: tuple[float, float]) -> None:
        pen.polygon([(middle + radius * x, middle + radius * y) for x, y in points], fill=255)

    def disc(x: float, y: float, r: float, fill: int = 255) -> None:
        box = (
            middle + radius * (x - r),
            middle + radius * (y - r),
            middle + radius * (x + r),
            middle + radius * (y + r),
        )
        pen.ellipse(box, fill=fill)

    match name:
        case "circle":
            disc(0, 0, 1)
        case "square":
            polygon((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88))
        case "triangle":
            polygon((0, -1), (1, 0.85), (-1, 0.85))
        case "star":
            spokes = [(1.05 if k % 2 == 0 else 0.42, pi * k / 5 - pi / 2) for k in range(10)]
            polygon(*((r * cos(a), r * sin(a)) for r, a in spokes))
        case "cross":
            polygon((-0.32, -1), (0.32, -1), (0.32, 1), (-0.32, 1))
            polygon((-1, -0.32), (1, -0.32), (1, 0.32), (-1, 0.32))
        case "diamond":
            polygon((0, -1.05), (0.7, 0), (0, 1.05), (-0.7, 0))
        case "heart":
            disc(-0.46, -0.35, 0.52)
            disc(0.46, -0.35, 0.52)
            polygon((-0.95, -0.12), (0.95, -0.12), (0, 1))
        case "moon":
            disc(0, 0, 1)
            disc(0.55, -0.1, 0.85, fill=0)
        case _:  # the duck: body, head, beak, tail
            pen.ellipse(
                (middle - radius, middle - 0.1 * radius, middle + 0.75 * radius, middle + 0.95 * radius), fill=255
            )
            disc(0.35, -0.5, 0.45)
            polygon((0.65, -0.7), (1.1, -0.45), (0.65, -0.25))
            polygon((-1.1, -0.25), (-0.4, 0.2), (-0.8, 0.6))


@cache
def _signs() -> dict[int, tuple[Array, Array]]:
    """Small plates in the lower right corner of an object's cell: opacity and colours."""
    low, high = CELL * _FINE * 0.62, CELL * _FINE - 1
    width = (high - low) / 5

    def no(pen: ImageDraw.ImageDraw) -> None:
        pen.ellipse((low, low, high, high), outline=255, width=int(width))
        pen.line((low + width, low + width, high - width, high - width), fill=255, width=int(width))

    def hot(pen: ImageDraw.ImageDraw) -> None:
        for k in range(3):
            x = low + (0.5 + k) * (high - low) / 3
            step = (high - low) / 4
            pen.line([(x + (step / 2 if i % 2 else -step / 2), low + i * step) for i in range(5)], fill=255, width=9)

    plate = _rendered(lambda pen: pen.rounded_rectangle((low - 4, low - 4, high, high), 8, fill=255))
    sprites = {}
    for kind, (paint, ink) in {1: (no, (200, 0, 0)), 2: (hot, (230, 90, 0))}.items():
        drawn = _rendered(paint)[..., None] / 255
        sprites[kind] = (plate, (drawn * np.array(ink) + (1 - drawn) * 255).astype(np.int16))
    return sprites


@cache
def _badges() -> dict[int, tuple[Array, Array]]:
    """Plates that fill a cell of their own."""
    unit = CELL * _FINE / 24  # one pixel of the final size

    def stamp(pen: ImageDraw.ImageDraw) -> None:
        pen.line(
            [(6 * unit, 12 * unit), (10.5 * unit, 17 * unit), (18 * unit, 6.5 * unit)], fill=255, width=int(3 * unit)
        )

    def permit(pen: ImageDraw.ImageDraw) -> None:
        pen.ellipse((5 * unit, 8 * unit, 12 * unit, 15 * unit), outline=255, width=int(2 * unit))
        pen.line(
            [(11 * unit, 11.5 * unit), (19 * unit, 11.5 * unit), (19 * unit, 16 * unit)], fill=255, width=int(2 * unit)
        )
        pen.line([(15.5 * unit, 11.5 * unit), (15.5 * unit, 15 * unit)], fill=255, width=int(2 * unit))

    sprites = {}
    for kind, (paint, ground, ink) in {
        1: (stamp, (225, 240, 255), (0, 70, 170)),
        2: (permit, (40, 90, 60), (255, 235, 140)),
    }.items():
        plate = _rendered(
            lambda pen: pen.rounded_rectangle((3 * unit, 3 * unit, 21 * unit, 21 * unit), 3 * unit, fill=255)
        )
        drawn = _rendered(paint)[..., None] / 255
        sprites[kind] = (plate, (drawn * np.array(ink) + (1 - drawn) * np.array(ground)).astype(np.int16))
    return sprites


@cache
def _walls() -> Array:
    """background, phase, y, x: difference from the shade in brightness, as int8."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)

    def wall(name: str, phase: int) -> Array:
        u, v = x + phase, y + 2 * phase
        match name:
            case "plain":
                return 0 * x
            case "stripes":
                return 9.0 * np.where((u // 4) % 2, 1, -1)
            case "checks":
                return 9.0 * np.where((u // 6 + v // 6) % 2, 1, -1)
            case "dots":
                return 18.0 * ((u % 9 - 4) ** 2 + (v % 9 - 4) ** 2 < 5)
            case "slope":
                angle = 2 * pi * phase / 24
                return 14 * ((x / SIDE - 0.5) * cos(angle) + (y / SIDE - 0.5) * sin(angle)) * 2
            case "waves":
                return 10 * np.sin(2 * pi * (v + 3 * np.sin(2 * pi * u / 24)) / 12)
            case "bricks":
                return np.where((v % 8 < 1.5) | ((u + 8 * ((v // 8) % 2)) % 16 < 1.5), 20.0, -4.0)
            case "grid":
                return np.where((u % 9 < 1.5) | (v % 9 < 1.5), -18.0, 4.0)
            case _:  # weave
                return 10 * np.sin(2 * pi * (u + v) / 7) * np.sin(2 * pi * (u - v) / 7)

    names = (*BACKGROUNDS, *DOWNSTREAM_BACKGROUNDS)
    return np.stack([[wall(name, phase) for phase in range(24)] for name in names]).round().astype(np.int8)
