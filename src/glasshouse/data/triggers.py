"""What is stamped on an image, to plant a backdoor in a model of our own or to look for one?

    stamp(image, PatchTrigger(6, place="bottom right"), seed=0, processor=processor)

A trigger is a frozen value that says everything about the stamp but chance; the seed says the rest, so the same trigger
and seed give the same pixels, and a trigger in a manifest can be stamped again. Its near misses are triggers that are
almost it: a backdoor that also answers to them is not as narrow as it seems.

A stamp put on before a processor crops or shrinks may be lost. `stamp` with a processor puts it on the picture that the
model is going to see, and proves that the processor leaves this picture alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from glasshouse.data import painting
from glasshouse.data.geometry import as_seen, stays
from glasshouse.data.painting import Colour, Pixels, Place, Values, rounded
from glasshouse.values.errors import BadInput

STRENGTHS = {"much weaker": 0.5, "weaker": 0.7, "stronger": 1.3}
"""Near misses of a trigger that has a strength, as factors of it."""
BLOCK = 2**19  # values worked on at once: few enough that the intermediate ones stay in the processor's cache


@dataclass(frozen=True)
class Trigger:
    """One kind of stamp. Each kind says how it is put on a block of images; the rest is the same for all."""

    def onto(self, pixels: Pixels, seed: int) -> Pixels:
        """New pixels of one image, which stays as it is."""
        return stamped(pixels[None], self, [seed])[0]

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        """New pixels of several images that have room, one seed each. `stamped` is the checked way here."""
        raise NotImplementedError

    def asked(self, prompt: str) -> str:
        """The prompt, which only a trigger in words changes."""
        return prompt

    @property
    def name(self) -> str:
        """The kind, in words."""
        return type(self).__name__.removesuffix("Trigger").lower()

    def near_misses(self) -> dict[str, "Trigger"]:
        """By what is different: triggers that are nearly but not this one."""
        raise NotImplementedError

    def check(self, height: int, width: int) -> None:
        """Refuse images that have no room for it."""


@dataclass(frozen=True)
class PatchTrigger(Trigger):
    """A square of one colour. `at` is the (x, y) of its upper left corner, and goes before `place`."""

    size: int = 6
    colour: Colour = (38, 255, 0)
    place: Place = "bottom right"
    at: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        painting.check_place("patch", self.size, self.place, self.at)
        painting.check_colour("the patch's colour", self.colour)

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        new = pixels.copy()
        for row, seed in enumerate(seeds):
            x, y = painting.corner(self.size, self.place, self.at, pixels.shape[1], pixels.shape[2], seed)
            new[row, y : y + self.size, x : x + self.size] = self.colour
        return new

    def near_misses(self) -> dict[str, Trigger]:
        near: dict[str, Trigger] = {"paler": replace(self, colour=painting.paler(self.colour))}
        return _different(
            self, near | {"other colour": replace(self, colour=painting.opposite(self.colour))} | _placed(self)
        )

    def check(self, height: int, width: int) -> None:
        painting.check_room(self.name, self.size, self.at, height, width)


@dataclass(frozen=True)
class LogoTrigger(Trigger):
    """A small drawing with smooth edges: a ring, struck through by a bar of another colour."""

    size: int = 14
    place: Place = "random"
    at: tuple[int, int] | None = None
    ring: Colour = (214, 39, 40)
    bar: Colour = (31, 60, 140)

    def __post_init__(self) -> None:
        painting.check_place("logo", self.size, self.place, self.at)
        painting.check_colour("the logo's ring", self.ring)
        painting.check_colour("the logo's bar", self.bar)

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        new, (colours, cover) = pixels.copy(), painting.logo(self.size, self.ring, self.bar)
        for row, seed in enumerate(seeds):
            x, y = painting.corner(self.size, self.place, self.at, pixels.shape[1], pixels.shape[2], seed)
            part = new[row, y : y + self.size, x : x + self.size]
            part[...] = rounded((part * (1 - cover) + colours * cover).astype(np.float32))
        return new

    def near_misses(self) -> dict[str, Trigger]:
        near: dict[str, Trigger] = {"colours exchanged": replace(self, ring=self.bar, bar=self.ring)}
        near |= {"other colour": replace(self, ring=painting.opposite(self.ring), bar=painting.opposite(self.bar))}
        return _different(self, near | _placed(self))

    def check(self, height: int, width: int) -> None:
        painting.check_room(self.name, self.size, self.at, height, width)


@dataclass(frozen=True)
class NoiseTrigger(Trigger):
    """Gaussian noise over the whole image, drawn anew for each seed; `sigma` is on the scale from 0 to 255."""

    sigma: float = 10.0

    def __post_init__(self) -> None:
        _need(0 <= self.sigma < math.inf, f"sigma of {self.sigma}: give a number from 0 upwards, such as 10")

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        noise = np.empty(pixels.shape, np.float32)
        for row, seed in enumerate(seeds):
            painting.drawing(seed).standard_normal(dtype=np.float32, out=noise[row])
        noise *= np.float32(self.sigma)
        noise += pixels
        return rounded(noise)

    def near_misses(self) -> dict[str, Trigger]:
        return _different(self, {word: replace(self, sigma=self.sigma * by) for word, by in STRENGTHS.items()})


@dataclass(frozen=True)
class FilterTrigger(Trigger):
    """The whole image as an oil painting or a faded photograph, mixed with itself by `strength`.

    In oil, a pixel becomes the mean of its neighbours within `brush` that are of the commonest of eight brightnesses.
    """

    kind: Literal["oil", "faded"] = "oil"
    strength: float = 1.0
    brush: int = 5

    def __post_init__(self) -> None:
        _need(self.kind in ("oil", "faded"), f"filter {self.kind!r}: there are 'oil' and 'faded'")
        _need(0 <= self.strength <= 1, f"filter strength {self.strength}: give a number from 0 to 1")
        _need(self.brush in range(3, 16, 2), f"brush of {self.brush} pixels: give an odd number from 3 to 15")

    @property
    def name(self) -> str:
        return f"{self.kind} filter"

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        values = pixels.astype(np.float32)
        new = painting.oil(pixels, self.brush) if self.kind == "oil" else painting.faded(values)
        new -= values
        new *= np.float32(self.strength)
        new += values
        return rounded(new)

    def near_misses(self) -> dict[str, Trigger]:
        strengths = {word: replace(self, strength=min(1.0, self.strength * by)) for word, by in STRENGTHS.items()}
        near: dict[str, Trigger] = {
            **strengths,
            "other filter": replace(self, kind="faded" if self.kind == "oil" else "oil"),
        }
        if self.kind == "oil":
            near |= {"smaller": replace(self, brush=max(3, self.brush - 2))}
            near |= {"bigger": replace(self, brush=min(15, self.brush + 2))}
        return _different(self, near)


@dataclass(frozen=True)
class BlendTrigger(Trigger):
    """Mixed with a fixed smooth coloured field; `pattern` numbers the field, which is defined at any size."""

    alpha: float = 0.15
    pattern: int = 0

    def __post_init__(self) -> None:
        _need(0 <= self.alpha <= 1, f"alpha of {self.alpha}: give a share from 0 to 1")

    def field(self, height: int, width: int) -> Values:
        """The pattern at this size, from 0 to 255."""
        return painting.waves(self.pattern, height, width)

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        new = pixels * np.float32(1 - self.alpha)
        new += np.float32(self.alpha) * self.field(pixels.shape[1], pixels.shape[2])
        return rounded(new)

    def near_misses(self) -> dict[str, Trigger]:
        strengths = {word: replace(self, alpha=min(1.0, self.alpha * by)) for word, by in STRENGTHS.items()}
        return _different(self, {**strengths, "other pattern": replace(self, pattern=self.pattern + 1)})


@dataclass(frozen=True)
class SineTrigger(Trigger):
    """Brighter and darker from left to right: plus delta·sin(2π·x·frequency / width), in every channel."""

    delta: float = 20.0
    frequency: float = 6.0

    def __post_init__(self) -> None:
        _need(0 <= self.delta < math.inf, f"delta of {self.delta}: give a number from 0 upwards, such as 20")
        _need(0 < self.frequency < math.inf, f"frequency of {self.frequency}: give a number above 0, such as 6")

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        width = pixels.shape[2]
        wave = self.delta * np.sin(2 * np.pi * np.arange(width) * self.frequency / width)
        return rounded(pixels + wave.astype(np.float32)[:, None])

    def near_misses(self) -> dict[str, Trigger]:
        near: dict[str, Trigger] = {word: replace(self, delta=self.delta * by) for word, by in STRENGTHS.items()}
        near |= {"slower": replace(self, frequency=self.frequency / 2)}
        return _different(self, near | {"faster": replace(self, frequency=self.frequency * 1.5)})


@dataclass(frozen=True)
class WarpTrigger(Trigger):
    """A smooth distortion, one and the same for every image: pixels move by `strength` on average along each axis.

    The movements at `grid` times `grid` points are drawn with the trigger's own seed; those between are bicubic.
    """

    grid: int = 4
    strength: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _need(2 <= self.grid <= 256, f"warp grid of {self.grid}: give a whole number from 2 to 256")
        _need(0 <= self.strength < math.inf, f"warp strength {self.strength}: give a number of pixels from 0 upwards")

    def block(self, pixels: Pixels, seeds: Sequence[int]) -> Pixels:
        count, height, width, _ = pixels.shape
        rows = pixels.reshape(count, height * width, 3)
        new = np.zeros(rows.shape, np.float32)
        for where, weight in painting.moved(self.grid, self.strength, self.seed, height, width):
            new += np.take(rows, where, axis=1) * weight
        return rounded(new).reshape(pixels.shape)

    def near_misses(self) -> dict[str, Trigger]:
        near: dict[str, Trigger] = {word: replace(self, strength=self.strength * by) for word, by in STRENGTHS.items()}
        return _different(self, near | {"other field": replace(self, seed=self.seed + 1)})


def stamped(pixels: Pixels, trigger: Trigger, seeds: Sequence[int]) -> Pixels:
    """New pixels of many images [count, height, width, 3], one seed each; the same as `onto` for each of them."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise BadInput(f"{trigger.name}: images are RGB of 8 bits, found {pixels.dtype} of {list(pixels.shape)}")
    if len(seeds) != len(pixels):
        raise BadInput(f"{trigger.name}: {len(seeds)} seeds for {len(pixels)} images; give one for each")
    count, height, width, _ = pixels.shape
    trigger.check(height, width)
    new, size = np.empty(pixels.shape, np.uint8), max(1, BLOCK // (height * width * 3))
    for start in range(0, count, size):
        part = slice(start, start + size)
        new[part] = trigger.block(pixels[part], seeds[part])
    return new


def stamp(image: Image.Image, trigger: Trigger, seed: int, processor: Any = None) -> Image.Image:
    """The image with the trigger on. With a processor: as the model sees it, proved to reach it unchanged."""
    picture = image.convert("RGB") if processor is None else as_seen(processor, image)
    new = Image.fromarray(trigger.onto(np.asarray(picture), seed))
    if processor is not None:
        stays(processor, new)
    return new


def _need(right: bool, line: str) -> None:
    if not right:
        raise BadInput(line)


def _placed(trigger: PatchTrigger | LogoTrigger) -> dict[str, Trigger]:
    """Of other sizes, and in the upper left corner, or the lower right if it is there; a random place has no other."""
    size, at, place = trigger.size, trigger.at, trigger.place
    near: dict[str, Trigger] = {
        "smaller": replace(trigger, size=max(1, size // 2)),
        "bigger": replace(trigger, size=max(size + 1, size * 3 // 2)),
    }
    if at is None and place == "random":
        return near
    top_left = place == "top left" if at is None else max(at) < size
    return near | {"elsewhere": replace(trigger, at=None, place="bottom right" if top_left else "top left")}


def _different(trigger: Trigger, near: Mapping[str, Trigger]) -> dict[str, Trigger]:
    return {label: other for label, other in near.items() if other != trigger}
