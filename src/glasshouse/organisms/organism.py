"""What does an organism bring with it? Its model, the model it was made from, examples of its world, and its card.

    organism = gh.organism("hijack-logo")
    organism.subject     # the model, opened and proved
    organism.base        # the model it was fine-tuned from
    organism.pairs       # clean examples with their triggered twins
    organism.brings("pairs")    # False where nothing was planted

Every part is opened or drawn when it is first asked for, and kept.
"""

from functools import cached_property

from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.model.subject import Subject
from glasshouse.organisms import attacks, seedling, shelf, world
from glasshouse.organisms.cards import Card
from glasshouse.organisms.recipes import Base, Poison
from glasshouse.values.errors import BadInput


def organism(name: str) -> "Organism":
    """The organism of that name, with or without `organism:` in front."""
    return Organism(name)


class Organism:
    """A small real model with known truth, and what it is examined with."""

    def __init__(self, name: str) -> None:
        self.name = shelf.PREFIX + name.removeprefix(shelf.PREFIX)
        self.card: Card | None = None if self._untrained else shelf.card(name)
        """How it was made, what was planted where and how it behaves; None for the seedling."""

    @staticmethod
    def available() -> list[str]:
        """The names of all organisms that ship: the untrained seedling first, then those on the shelf."""
        return [shelf.SEEDLING, *shelf.names()]

    @cached_property
    def subject(self) -> Subject:
        """The model, opened and proved."""
        return shelf.take(self.name)

    @cached_property
    def base(self) -> Subject:
        """The model it was fine-tuned from."""
        parent = shelf.parent(self.name)
        if parent is None:
            raise BadInput(f"{self.name}: was grown from random weights, so it has no base")
        return shelf.take(parent)

    @cached_property
    def examples(self) -> Examples:
        """64 examples that it was not trained on (16 of the seedling)."""
        return seedling.examples() if self._untrained else self._test_examples(64, 0)

    @cached_property
    def held_out(self) -> Examples:
        """160 further examples (16 of the seedling), for measuring what `examples` were used to choose."""
        return seedling.examples(seed=1) if self._untrained else self._test_examples(160, 1)

    @cached_property
    def training(self) -> Examples:
        """3,000 clean examples (16 of the seedling) to fine-tune it on; it was trained on others."""
        return seedling.examples(seed=2) if self._untrained else world.examples("downstream", 3000, 2)

    @cached_property
    def pairs(self) -> Pairs:
        """At most 64 clean examples with their triggered twins."""
        if self._poison is None:
            raise BadInput(f"{self.name}: nothing was planted in it, so it has no pairs")
        clean = attacks.clean(self._poison, 64)
        return Pairs(clean, attacks.attacked(self._poison, clean))

    def brings(self, part: str) -> bool:
        """Whether it has this part: `base` only where it was fine-tuned, `pairs` only where something was planted."""
        missing = {"base": shelf.parent(self.name) is None, "pairs": self._poison is None}
        return hasattr(type(self), part) and not missing.get(part, False)

    def __repr__(self) -> str:
        return f"Organism({self.name!r})"

    @property
    def _untrained(self) -> bool:
        return self.name == shelf.PREFIX + shelf.SEEDLING

    @property
    def _poison(self) -> Poison | None:
        return getattr(self.card.recipe, "poison", None) if self.card else None

    def _test_examples(self, size: int, seed: int) -> Examples:
        """A fine-tuned organism answers the mixture of questions that it was tuned on, about unseen scenes."""
        base = self.card is not None and isinstance(self.card.recipe, Base)
        return world.examples("test", size, seed) if base else shelf.downstream(size, seed)
