"""Which weights and settings differ from the base, and by how much?

Paper: none.

1. Compare every weight and every stored buffer of the model with the base's, bit by bit.
2. For each weight that differs: the norm of the update relative to the weight, its share of the whole update's energy
   (squared norm), and for matrices the stable rank (energy over that of the first direction).
3. Add up the energy of each part: vision tower, projector, language model, embeddings, head.
4. Compare the settings that steer the model line by line: configuration, generation configuration, chat template,
   tokenizer and image processor.

How to read it: what differs is what an audit has to examine; a part that is bit-identical to a trusted base needs no
examination. An update of low stable rank is a narrow one. When it misleads: a small update can carry a backdoor and a
large one can be harmless, so size says where to look and not whom to trust. Everything here is relative to the base,
and the base may itself be tampered with.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, get_args

from glasshouse.engine.kinds import Base
from glasshouse.engine.method import at_least, method
from glasshouse.engine.units import mapped, merged
from glasshouse.model.differences import Status, WeightDifference, WeightPart, compared_weights, settings
from glasshouse.model.subject import Subject
from glasshouse.numerics.spectra import leading
from glasshouse.values.blocks import Block, Transcript, Turn
from glasshouse.values.findings import Finding, Keys, NoPicture, Rows, Verdict
from glasshouse.values.wording import counted, listed, percent

PARTS: tuple[WeightPart, ...] = get_args(WeightPart)


@dataclass(frozen=True)
class Options:
    lines: int = 40
    """Number of lines to show of each setting that differs."""

    def __post_init__(self) -> None:
        at_least(self, lines=1)


@dataclass(frozen=True)
class WeightChange:
    """How one weight differs from the base's."""

    part: WeightPart
    """Part of the model that holds the weight."""
    status: Status
    """changed; retyped (equal values in another type); reshaped; added or removed (only one model has it)."""
    relative_size: float | None
    """Norm of the update, relative to the norm of the base's weight."""
    energy: float
    """Squared norm of the update."""
    stable_rank: float | None
    """Energy of the update over the energy of its first direction; 1 is the narrowest. Matrices only."""


@dataclass(frozen=True)
class Compared:
    """The weights of a part that differ, and how many were compared."""

    differing: Mapping[str, WeightChange]
    total: int

    def __add__(self, other: "Compared") -> "Compared":
        return Compared({**self.differing, **other.differing}, self.total + other.total)


@dataclass(frozen=True, eq=False)
class ChangedFinding(Finding):
    energy: Annotated[Mapping[str, float], Keys("part: part of the model", y="fraction of the update")]
    """Share of each part in the energy of the whole update"""
    weights: Annotated[Mapping[str, WeightChange], Rows("weight: name of the weight in the model")]
    """Weights that differ, those with the largest share of the update first"""
    settings: Annotated[Mapping[str, str], NoPicture]
    """Settings that differ, with the lines that were removed (-) and added (+)."""
    compared: int
    """Weights compared"""

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the model with a weight that differs."""
        return tuple(part for part in PARTS if any(weight.part == part for weight in self.weights.values()))

    @property
    def verdict(self) -> Verdict:
        return Verdict.DESCRIBED

    @property
    def headline(self) -> str:
        steering = f"{listed(list(self.settings))} {'differs' if len(self.settings) == 1 else 'differ'}"
        if not self.weights:
            identical = f"All {self.compared:,} weights are bit-identical to the base"
            return f"{identical}, but the {steering}." if self.settings else f"{identical}, and so are its settings."
        shares = [f"{part} ({percent(self.energy[part])})" if part in self.energy else part for part in self.parts]
        changed = f"{len(self.weights):,} of {self.compared:,} weights differ from the base: {listed(shares)}"
        return f"{changed}; the {steering}." if self.settings else f"{changed}."

    def blocks(self) -> list[Block]:
        turns = tuple(Turn(name, text) for name, text in self.settings.items())
        return [*super().blocks(), *([Transcript("Settings that differ from the base", turns)] if turns else [])]


@method(
    needs="weights", depth="quick",
    uses={
        "subject": "Every weight, buffer and setting of it is compared.",
        "base": "Every weight, buffer and setting is compared with its own.",
    },
)  # fmt: skip
def changed(subject: Subject, base: Base, options: Options = Options()) -> ChangedFinding:
    """Every weight and setting beside the base's."""
    handles = {"subject": subject, "base": base}
    compared = merged(mapped(_compared, PARTS, Compared, handles=handles, name="part"))  # steps 1 and 2
    ordered = dict(sorted(compared.differing.items(), key=lambda item: -item[1].energy))
    return ChangedFinding(_by_part(ordered), ordered, _settings(subject, base, options.lines), compared.total)


def _compared(part: WeightPart, subject: Subject, base: Subject) -> Compared:
    """The weights of one part."""
    weights = [difference for difference in compared_weights(subject, base) if difference.part == part]
    return Compared({each.name: _change(each) for each in weights if each.status != "same"}, len(weights))


def _change(difference: WeightDifference) -> WeightChange:
    if difference.status != "changed":
        return WeightChange(difference.part, difference.status, None, 0.0, None)
    delta = difference.delta
    energy = float(delta.double().square().sum())
    rank = energy / float(leading(delta, 1)[1][0].double().square()) if delta.ndim == 2 and energy else None
    return WeightChange(difference.part, difference.status, difference.relative_size, energy, rank)


def _by_part(weights: Mapping[str, WeightChange]) -> dict[str, float]:
    """Step 3: the share of each part in the energy of the whole update."""
    total = sum(weight.energy for weight in weights.values())
    shares = {part: sum(weight.energy for weight in weights.values() if weight.part == part) for part in PARTS}
    return {part: share / total for part, share in shares.items() if total and share}


def _settings(subject: Subject, base: Subject, most: int) -> dict[str, str]:
    """Step 4: the settings that differ, as removed and added lines."""
    after, before = settings(subject), settings(base)
    return {
        name: _lines(before.get(name, ""), after.get(name, ""), most)
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    }


def _lines(before: str, after: str, most: int) -> str:
    """Lines that only one of two texts has. They are counted and not aligned, which a stranger's file could make take
    for ever."""
    first, second = Counter(_indented(before)), Counter(_indented(after))
    lines = [f"-{line}" for line in (first - second).elements()] + [f"+{line}" for line in (second - first).elements()]
    lines = lines or ["the same lines in another order"]
    return "\n".join(lines[:most] + ([f"… {counted(len(lines) - most, 'more line')}"] if len(lines) > most else []))


def _indented(text: str) -> list[str]:
    """Its lines; JSON with a line for each of its entries."""
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False).splitlines()
    except (ValueError, RecursionError):  # no JSON, or a template that nests like a program that breaks readers
        return text.splitlines()
