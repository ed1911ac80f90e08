"""What is known of an organism? Its card: how it was made, what was planted where, how it behaves."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from glasshouse.organisms.drawing import draw
from glasshouse.organisms.questions import KINDS, View, ask
from glasshouse.organisms.recipes import RECIPES, Recipe, recipe
from glasshouse.organisms.scenes import Split, draw_scenes
from glasshouse.values.codec import digest
from glasshouse.values.intervals import Interval
from glasshouse.values.papers import read_papers, write_papers

SCHEMA = 1


@dataclass(frozen=True)
class Card:
    """Everything known of one organism."""

    name: str
    about: str
    recipe: Recipe
    world: str
    """Digest of the world it was grown in: pictures, questions, answers."""
    planted: Mapping[str, str]
    """What is wrong with it, and where; empty where nothing was planted."""
    measured: Mapping[str, Interval]
    weights: str
    """SHA-256 of all its weights."""
    parameters: int
    parent: str = ""
    """SHA-256 of the weights it was made from."""
    losses: tuple[float, ...] = ()
    """Of training, at a dozen points."""
    minutes: float = 0.0
    """How long it took to grow, measuring left out, on the machine named in `versions`."""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    of: str = ""
    """Which recipe it follows, where that is not its own name."""

    def stale(self) -> str:
        """Why this card no longer speaks of what its name means today; empty if it does."""
        name = self.of or self.name
        if name in RECIPES and digest(recipe(name, self.recipe.seed)) != digest(self.recipe):
            return "its recipe was edited after it was grown"
        return "" if self.world == world_digest() else "the world it was grown in has changed since"

    def write(self, file: Path) -> None:
        write_papers(self, file, "card", SCHEMA)

    @classmethod
    def read(cls, file: Path) -> "Card":
        return read_papers(cls, file, "card", SCHEMA, "grow the organism again")


@cache
def world_digest() -> str:
    """SHA-256 over a few scenes of every split as they are drawn, and what is asked about them."""
    splits: tuple[Split, ...] = ("train", "test", "downstream", "compositional")
    content = hashlib.sha256()
    for split in splits:
        scenes = draw_scenes(24, 0, split)
        content.update(draw(scenes).tobytes())
        rng = np.random.default_rng(0)
        asked = [ask(View.of(scenes, row), kind, rng) for row in range(len(scenes)) for kind in KINDS]
        content.update(repr(asked).encode())
    return content.hexdigest()
