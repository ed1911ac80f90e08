"""Is an organism still what its card says? Measured again, and every difference named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.subject import Subject
from glasshouse.organisms import measured, planted, shelf
from glasshouse.organisms.cards import Card
from glasshouse.organisms.recipes import Tuned
from glasshouse.values.errors import BadInput
from glasshouse.values.intervals import Interval


@dataclass(frozen=True)
class Verified:
    """What was found."""

    card: Card
    problems: tuple[str, ...]
    """What no longer holds, in words; empty if all does."""
    measured: Mapping[str, Interval]
    held: int
    """Rates whose interval overlaps the card's."""
    equal: int
    """Rates that came out to the digit."""


def verify(source: str, share: float = 1.0) -> Verified:
    """An organism by name, or a folder that one was grown into. With a `share`, measured on fewer examples."""
    if not 0 < share <= 1:
        raise BadInput(f"a share of {share}: give more than 0 and at most 1 of the examples to measure on")
    card, subject = _opened(source)
    problems = [card.stale()] if card.stale() else []
    found = weight_hash(subject.model)
    if found != card.weights:
        problems.append(f"its weights hash to {found[:12]}…, the card says {card.weights[:12]}…")
    above = card.recipe.parent if isinstance(card.recipe, Tuned) else ""
    if above in shelf.names() and shelf.card(above).weights != card.parent:
        problems.append(f"it was grown from another {above} than today's; grow it again")
    size = sum(parameter.numel() for parameter in subject.model.parameters())
    if size != card.parameters:
        problems.append(f"it has {size:,} parameters, the card says {card.parameters:,}")
    if planted.described(card.recipe) != dict(card.planted):
        problems.append(
            f"the card says of what was planted {dict(card.planted)}, its recipe {planted.described(card.recipe)}"
        )
    rates = measure(subject, card, share)
    problems += [f"{name}: is on the card and was not measured" for name in card.measured if name not in rates]
    for name, rate in rates.items():
        said = card.measured.get(name)
        if said is None:
            problems.append(f"{name}: {rate}, which the card does not know")
        elif not rate.overlaps(said):
            problems.append(f"{name}: {rate}, the card says {said}")
    known = [(rate, card.measured[name]) for name, rate in rates.items() if name in card.measured]
    held = sum(rate.overlaps(said) for rate, said in known)
    equal = sum(rate.value == said.value for rate, said in known)
    return Verified(card, tuple(problems), rates, held, equal)


def measure(subject: Subject, card: Card, share: float) -> measured.Rates:
    """What growing measured, again."""
    recipe = card.recipe
    if not isinstance(recipe, Tuned):
        return measured.base(subject, share)
    rates = measured.tuned(subject, recipe.poison, share)
    return rates | planted.ablated(subject, recipe, share) if recipe.poison and recipe.planted_at else rates


def _opened(source: str) -> tuple[Card, Subject]:
    folder = Path(source)
    if (folder / "organism.json").is_file():
        return Card.read(folder / "organism.json"), open_subject(folder)
    if folder.is_dir() and source not in shelf.names():
        raise BadInput(f"{source}: no organism.json in this folder; give a name, or a folder that one was grown into")
    return shelf.card(source), shelf.take(source)
