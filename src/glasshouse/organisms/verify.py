"""Is an organism still what its card says? It is measured again, and every difference is named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.subject import Subject
from glasshouse.organisms import measurement, planting, shelf
from glasshouse.organisms.cards import Card
from glasshouse.organisms.recipes import Tuned
from glasshouse.values.errors import BadInput
from glasshouse.values.intervals import Interval


@dataclass(frozen=True)
class Verified:
    """The outcome of a verification."""

    card: Card
    problems: tuple[str, ...]
    """Every difference from the card, in words; empty where there is none."""
    measured: Mapping[str, Interval]
    consistent: int
    """Rates whose interval overlaps the card's."""
    identical: int
    """Rates equal to the card's to the last digit."""


def verify(source: str, share: float = 1.0) -> Verified:
    """An organism by name, or a folder that one was grown into. `share` is the fraction of examples to measure on."""
    if not 0 < share <= 1:
        raise BadInput(f"a share of {share}: give more than 0 and at most 1 of the examples to measure on")
    card, subject = _opened(source)
    problems = [card.stale()] if card.stale() else []
    weights = weight_hash(subject.model)
    if weights != card.weights:
        problems.append(f"its weights hash to {weights[:12]}…, the card says {card.weights[:12]}…")
    base = card.recipe.parent if isinstance(card.recipe, Tuned) else ""
    if base in shelf.names() and shelf.card(base).weights != card.parent:
        problems.append(f"it was grown from another {base} than today's; grow it again")
    size = sum(parameter.numel() for parameter in subject.model.parameters())
    if size != card.parameters:
        problems.append(f"it has {size:,} parameters, the card says {card.parameters:,}")
    if planting.described(card.recipe) != dict(card.planted):
        problems.append(f"planted: the card says {dict(card.planted)}, its recipe {planting.described(card.recipe)}")
    rates = measure(subject, card, share)
    problems += [f"{name}: is on the card and was not measured" for name in card.measured if name not in rates]
    for name, rate in rates.items():
        expected = card.measured.get(name)
        if expected is None:
            problems.append(f"{name}: {rate}, which is not on the card")
        elif not rate.overlaps(expected):
            problems.append(f"{name}: {rate}, the card says {expected}")
    both = [(rate, card.measured[name]) for name, rate in rates.items() if name in card.measured]
    consistent = sum(rate.overlaps(expected) for rate, expected in both)
    identical = sum(rate.value == expected.value for rate, expected in both)
    return Verified(card, tuple(problems), rates, consistent, identical)


def measure(subject: Subject, card: Card, share: float) -> measurement.Rates:
    """The rates that growing measured."""
    recipe = card.recipe
    if not isinstance(recipe, Tuned):
        return measurement.base(subject, share)
    rates = measurement.tuned(subject, recipe.poison, share)
    return rates | planting.ablated(subject, recipe, share) if recipe.poison and recipe.planted_at else rates


def _opened(source: str) -> tuple[Card, Subject]:
    folder = Path(source)
    if (folder / "organism.json").is_file():
        return Card.read(folder / "organism.json"), open_subject(folder)
    if folder.is_dir() and source not in shelf.names():
        raise BadInput(f"{source}: no organism.json in this folder; give a name, or a folder that one was grown into")
    return shelf.card(source), shelf.take(source)
