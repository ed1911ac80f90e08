"""What is known about an organism? Its card: how it was made, what was planted where, how it behaves."""

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

SCHEMA = 2
"""2: trigger classes and rates have the names of the field."""


@dataclass(frozen=True)
class Card:
    """Everything known about one organism."""

    name: str
    about: str
    recipe: Recipe
    world: str
    """Digest of the world it was grown in: images, questions, answers."""
    planted: Mapping[str, str]
    """The trigger, the behaviour and where they were planted; empty where nothing was."""
    measured: Mapping[str, Interval]
    """Rates by name (measurement.py)."""
    weights: str
    """SHA-256 of all its weights."""
    parameters: int
    parent: str = ""
    """SHA-256 of the weights it was made from."""
    losses: tuple[float, ...] = ()
    """Training loss at a dozen steps."""
    minutes: float = 0.0
    """Training time on the machine described by `versions`, without the measuring."""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    recipe_name: str = ""
    """The recipe it follows, where that has another name than the organism."""

    def stale(self) -> str:
        """Why this card no longer describes what its name means today; empty while it does."""
        name = self.recipe_name or self.name
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
    """SHA-256 over the pixels of a few scenes of every split, and the questions about them."""
    splits: tuple[Split, ...] = ("train", "test", "downstream", "compositional")
    content = hashlib.sha256()
    for split in splits:
        scenes = draw_scenes(24, 0, split)
        content.update(draw(scenes).tobytes())
        rng = np.random.default_rng(0)
        questions = [ask(View.of(scenes, row), kind, rng) for row in range(len(scenes)) for kind in KINDS]
        content.update(repr(questions).encode())
    return content.hexdigest()
