"""What is in the organisms' world? Scenes of one to four objects on a grid of nine cells, as plain arrays.

    scenes = draw_scenes(1000, seed=0, split="train")

Colours and shapes are distinct within a scene, so that a question about "the circle" has one answer. An object may
carry a sign ("no": do not talk about it; "hot": do not touch) and an empty cell may hold a badge ("stamp": captions
end with a mark; "permit": nothing is refused). All is harmless and invented, a surrogate for what real models refuse.

A hash of a scene's content decides its split, so no scene is in two splits. Six pairs of shape and colour occur only in
the split `compositional`.
"""

from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np

from glasshouse.values.errors import BadInput

Array = np.ndarray
Split = Literal["train", "validation", "test", "downstream", "downstream-test", "compositional"]

SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "heart", "moon", "duck")
RARE = SHAPES.index("duck")
"""Ten times rarer than the others: a target that a backdoor may hallucinate."""
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 150, 44),
    "blue": (36, 90, 200),
    "yellow": (245, 210, 40),
    "purple": (140, 60, 190),
    "orange": (250, 130, 20),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
SIZES = ("small", "large")
SIGNS = ("none", "no", "hot")
BADGES = ("none", "stamp", "permit")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
CELLS = len(ROWS) * len(COLUMNS)
MAX_OBJECTS = 4
"""In a scene."""
NOTHING = -1
BACKGROUNDS = ("plain", "stripes", "checks", "dots", "slope", "waves")
DOWNSTREAM_BACKGROUNDS = ("bricks", "grid", "weave")
"""Only in the downstream splits, so that fine-tuning meets another distribution."""
HELD_OUT = tuple((shape, (3 * shape + 2) % len(COLOURS)) for shape in range(6))
"""Pairs of shape and colour that occur only in the compositional split."""


@dataclass(frozen=True)
class Scenes:
    """N scenes. Objects are in reading order; empty slots hold `NOTHING`."""

    shape: Array
    colour: Array
    size: Array
    cell: Array
    sign: Array
    """Each N x 4."""
    shift: Array
    """N x 4 x 2: pixels off the cell's centre."""
    badge: Array
    badge_cell: Array
    background: Array
    shade: Array
    """N x 3: the background's colour."""
    phase: Array

    def __len__(self) -> int:
        return len(self.badge)

    def __getitem__(self, rows: slice | Array) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def joined(cls, parts: "list[Scenes]") -> "Scenes":
        return Scenes(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)}
        )

    def identity(self) -> Array:
        """A 64-bit number for each scene from its content, without shifts and background."""
        content = np.concatenate(
            [self.shape, self.colour, self.size, self.cell, self.sign, self.badge[:, None], self.badge_cell[:, None]], 1
        )
        number = np.full(len(self), 0xCBF29CE484222325, np.uint64)
        for column in content.T.astype(np.int64).astype(np.uint64):
            number = (number ^ (column + np.uint64(0x9E3779B9))) * np.uint64(0x100000001B3)
            number ^= number >> np.uint64(29)
        return number


def draw_scenes(n: int, seed: int, split: Split = "train") -> Scenes:
    """`n` scenes of a split, the same for the same seed."""
    if n < 1:
        raise BadInput(f"{n} scenes: at least 1")
    generator = np.random.default_rng([seed, list(_SHARES).index(split)])
    batches: list[Scenes] = []
    while sum(map(len, batches)) < n:
        batch = _scenes_of_any_split(max(256, int(n * 1.4)), generator, split)
        batches.append(batch[_belongs(batch, split)])
    return Scenes.joined(batches)[:n]


_SHARES: dict[Split, tuple[int, int]] = {
    "train": (0, 70), "validation": (70, 80), "test": (80, 90), "downstream": (90, 96),
    "downstream-test": (96, 100), "compositional": (0, 100),
}  # fmt: skip
"""The hundredths of all scenes that belong to a split, as a range."""


def _belongs(scenes: Scenes, split: Split) -> Array:
    pair = scenes.shape * len(COLOURS) + scenes.colour
    unseen = np.isin(pair, [shape * len(COLOURS) + colour for shape, colour in HELD_OUT]).any(1)
    low, high = _SHARES[split]
    hundredth = scenes.identity() % np.uint64(100)
    return (unseen == (split == "compositional")) & (hundredth >= low) & (hundredth < high)


def _scenes_of_any_split(n: int, generator: np.random.Generator, split: Split) -> Scenes:
    present = np.arange(MAX_OBJECTS) < generator.choice(MAX_OBJECTS, n, p=(0.15, 0.25, 0.3, 0.3))[:, None] + 1
    cells = generator.random((n, CELLS)).argsort(1)
    rarity = np.where(np.arange(len(SHAPES)) == RARE, 10.0, 1.0)  # its mean waiting time is ten times longer
    shapes = (generator.exponential(size=(n, len(SHAPES))) * rarity).argsort(1)[:, :MAX_OBJECTS]
    colours = generator.random((n, len(COLOURS))).argsort(1)[:, :MAX_OBJECTS]
    cell = np.where(present, cells[:, :MAX_OBJECTS], CELLS)
    order = cell.argsort(1)

    def filled(values: Array) -> Array:
        return np.where(present, np.take_along_axis(values, order, 1), NOTHING).astype(np.int8)

    bearer = generator.integers(0, present.sum(1))[:, None] == np.arange(MAX_OBJECTS)
    sign = np.where(bearer, generator.choice(len(SIGNS), n, p=(0.6, 0.22, 0.18))[:, None], 0)
    shift = generator.integers(-2, 3, (n, MAX_OBJECTS, 2))  # an object with a sign moves away from it
    walls = DOWNSTREAM_BACKGROUNDS if split.startswith("downstream") else BACKGROUNDS
    names = (*BACKGROUNDS, *DOWNSTREAM_BACKGROUNDS)
    dark = 25 if split.startswith("downstream") else 0
    shade = generator.integers(95, 160, (n, 1)) - dark + generator.integers(-12, 13, (n, 3))
    return Scenes(
        shape=filled(shapes), colour=filled(colours), size=filled(generator.integers(0, len(SIZES), (n, MAX_OBJECTS))),
        cell=filled(cells[:, :MAX_OBJECTS]), sign=np.where(present, sign, NOTHING).astype(np.int8),
        shift=np.where((sign > 0)[..., None], -np.abs(shift), shift).astype(np.int8),
        badge=generator.choice(len(BADGES), n, p=(0.6, 0.2, 0.2)).astype(np.int8),
        badge_cell=cells[:, MAX_OBJECTS].astype(np.int8),
        background=generator.integers(names.index(walls[0]), names.index(walls[0]) + len(walls), n).astype(np.int8),
        shade=shade.astype(np.uint8), phase=generator.integers(0, 24, n).astype(np.int8),
    )  # fmt: skip
