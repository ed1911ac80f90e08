"""Where does a trigger go, and how are its pixels computed? Pure functions on arrays, quick for thousands of images."""

from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glasshouse.values.errors import BadInput

Pixels = NDArray[np.uint8]
"""Height, width, RGB; with images in front where there are many."""
Values = NDArray[np.float32]
Colour = tuple[int, int, int]
Place = Literal["centre", "top left", "top right", "bottom left", "bottom right", "random"]
Array = TypeVar("Array", bound=NDArray[Any])

BRIGHTNESSES = 8
"""How many the oil painting tells apart."""
WAVES = 6
"""How many make one channel of a blended pattern."""
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)


def drawing(seed: int) -> np.random.Generator:
    """A fresh generator; any whole number names one."""
    return np.random.default_rng(seed % 2**64)


def rounded(values: Values) -> Pixels:
    """The nearest colour there is. The values are used up."""
    np.rint(values, out=values)
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


def corner(size: int, place: Place, at: tuple[int, int] | None, height: int, width: int, seed: int) -> tuple[int, int]:
    """The x and y of the upper left corner of a square that is put there."""
    right, bottom = width - size, height - size
    if at is not None:
        return at
    if place == "random":
        draw = drawing(seed)
        return int(draw.integers(right + 1)), int(draw.integers(bottom + 1))
    if place == "centre":
        return right // 2, bottom // 2
    return right if "right" in place else 0, bottom if "bottom" in place else 0


def check_place(name: str, size: int, place: Place, at: tuple[int, int] | None) -> None:
    """Refuse what is nowhere on any image."""
    places = get_args(Place)
    if size < 1:
        raise BadInput(f"a {name} of {size} pixels: give at least 1")
    if place not in places:
        raise BadInput(f"a {name} at {place!r}: the places are {', '.join(places)}")
    if at is not None and (len(at) != 2 or min(at) < 0):
        raise BadInput(f"a {name} at {at}: give x and y, counted from 0 at the upper left")


def check_room(name: str, size: int, at: tuple[int, int] | None, height: int, width: int) -> None:
    """Refuse what is not wholly on this image."""
    x, y = at or (0, 0)
    if x + size > width or y + size > height:
        place = f" at {at}" if at is not None else ""
        raise BadInput(
            f"a {name} of {size} pixels{place}: no room on an image of {width}x{height}; "
            "make it smaller, move it or leave such images out"
        )


def check_colour(what: str, colour: Colour) -> None:
    """Refuse what is not a colour of 8 bits a channel."""
    if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
        raise BadInput(f"{what} {colour}: give red, green and blue from 0 to 255")


def opposite(colour: Colour) -> Colour:
    """The complement, or black for a grey that is nearly its own."""
    red, green, blue = (255 - part for part in colour)
    return (red, green, blue) if max(abs(255 - 2 * part) for part in colour) > 64 else (0, 0, 0)


def paler(colour: Colour) -> Colour:
    """Half way to white."""
    red, green, blue = ((part + 255) // 2 for part in colour)
    return red, green, blue


def faded(values: Values) -> Values:
    """An old photograph: sepia, with grey for black and a paler white."""
    sepia = (values.reshape(-1, 3) @ SEPIA.T).reshape(values.shape)
    np.minimum(sepia, 255, out=sepia)
    sepia *= np.float32(0.75)
    sepia += np.float32(48)
    return sepia


def oil(pixels: Pixels, brush: int) -> Values:
    """Each pixel as the mean colour of its neighbours of the commonest brightness; the darkest where several tie."""
    half = brush // 2
    # A channel at a time, whole numbers of 16 bits: sums over a brush of 15 stay below 2**16.
    planes = np.pad(np.moveaxis(pixels, 3, 0).astype(np.uint16), ((0, 0), (0, 0), (half, half), (half, half)), "edge")
    brightness = (77 * planes[0] + 150 * planes[1] + 29 * planes[2]) // (65536 // BRIGHTNESSES)
    most = np.zeros(pixels.shape[:3], np.uint16)
    chosen = np.zeros((3, *pixels.shape[:3]), np.uint16)
    for level in range(BRIGHTNESSES):
        alike = brightness == level
        if not alike.any():
            continue
        count = _box(alike.astype(np.uint16), brush)
        more = count > most
        np.copyto(most, count, where=more)
        for channel in range(3):
            np.copyto(chosen[channel], _box(planes[channel] * alike, brush), where=more)
    return np.moveaxis(np.divide(chosen, most, dtype=np.float32), 0, 3)


def _box(plane: NDArray[np.uint16], size: int) -> NDArray[np.uint16]:
    """Sums over every window of `size` rows and columns, by sums of twice the width each time."""
    for axis in (-2, -1):
        plane = np.moveaxis(plane, axis, 0)
        kept, total, taken, width, power = len(plane) - size + 1, None, 0, 1, plane
        while True:
            if size & width:
                part = power[taken : taken + kept]
                total, taken = part if total is None else total + part, taken + width
            if (width := width * 2) > size:
                break
            power = power[: -(width // 2)] + power[width // 2 :]
        assert total is not None
        plane = np.moveaxis(total, 0, axis)
    return plane


@lru_cache(maxsize=32)
def waves(pattern: int, height: int, width: int) -> Values:
    """A smooth coloured field from 0 to 255, of plane waves that cross the image at most three times."""
    draw = drawing(pattern)
    across, down = draw.uniform(-3, 3, (2, WAVES, 3))
    phase = draw.uniform(0, 2 * np.pi, (WAVES, 3))
    x, y = np.arange(width)[None, :, None] / width, np.arange(height)[:, None, None] / height
    field = sum(np.sin(2 * np.pi * (across[k] * x + down[k] * y) + phase[k]) for k in range(WAVES))
    return _fixed(np.clip(127.5 + 127.5 * np.asarray(field) / np.sqrt(WAVES), 0, 255).astype(np.float32))


@lru_cache(maxsize=32)
def logo(size: int, ring: Colour, bar: Colour) -> tuple[Values, Values]:
    """The drawing's colours, and how far they cover what is below, from 0 to 1. Drawn large, so edges are smooth."""
    large = 8 * size
    canvas = Image.new("RGBA", (large, large), (*ring, 0))
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((large // 16, large // 16, large - large // 16 - 1, large - large // 16 - 1), (*ring, 0))
    pen.ellipse(
        (large // 16, large // 16, large - large // 16 - 1, large - large // 16 - 1), None, (*ring, 255), large // 6
    )
    ends = [(0, large - large // 5), (0, large - 1), (large // 5, large - 1)]
    pen.polygon([*ends, (large - 1, large // 5), (large - 1, 0), (large - large // 5, 0)], (*bar, 255))
    small = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32)
    return _fixed(small[..., :3].copy()), _fixed(small[..., 3:] / np.float32(255))


@lru_cache(maxsize=32)
def moved(grid: int, strength: float, seed: int, height: int, width: int) -> list[tuple[NDArray[np.intp], Values]]:
    """Where every pixel of a warped image comes from: four neighbours and their weights, borders held."""
    control = drawing(seed).uniform(-1, 1, (2, grid, grid)).astype(np.float32)
    field = np.stack(
        [np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC)) for c in control]
    )
    field = field.astype(np.float64) * (strength / max(float(np.abs(field).mean()), 1e-9))
    y = np.clip(np.arange(height)[:, None] + field[0], 0, height - 1)
    x = np.clip(np.arange(width)[None, :] + field[1], 0, width - 1)
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    sources: list[tuple[NDArray[np.intp], Values]] = []
    for row, down in ((top, 1 - (y - top)), (below, y - top)):
        for column, across in ((left, 1 - (x - left)), (right, x - left)):
            weight = (down * across).astype(np.float32).reshape(-1, 1)
            sources.append((_fixed((row * width + column).reshape(-1)), _fixed(weight)))
    return sources


def _fixed(array: Array) -> Array:
    array.setflags(write=False)  # it is kept and handed out again
    return array
