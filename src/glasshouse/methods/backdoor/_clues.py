"""Which numbers tell a backdoored projector from a benign one, when nobody knows the trigger?

Each clue is one number that is higher where something was planted. Which can be had depends on what is at hand:

with a clean base     faint, faint agreement, window, window agreement: how far the model leaves its base behind under
                      one trained change of the picture, and how much it is then one word that is said; steep: the share
                      of the update that stands away from a benign one; peak: how much of the last layer's update is
                      one direction; quiet peak: the same where clean pictures do not go; size: how large that update
                      is beside the layer itself, which tells no backdoor but how far the known organisms speak for it
with clean pictures   probes agreement, own agreement: one word gained under known stamps, or under a trained change,
                      against the clean picture; tail: how much of the last layer is one direction there; first, second
with the model alone  first, second: how much of each layer is one direction

Not all are weighed: with few known organisms few clues tell more than many. Which are was chosen on those organisms
alone, leaving out one pair at a time; the others are shown beside them, and one that cannot be read costs no answer.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._changed import changed, linears, matrices
from glasshouse.methods.backdoor._inversion import Found, faint, windowed
from glasshouse.methods.backdoor._planting import usual_rate
from glasshouse.methods.backdoor._probes import Probed, probed
from glasshouse.methods.backdoor._readings import answering_itself, prepared, read, with_pixels
from glasshouse.methods.backdoor._shift import tokens
from glasshouse.methods.backdoor._surgery import benign_update, surgery
from glasshouse.model.frozen import frozen
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import symmetric
from glasshouse.numerics.spectra import singular_values
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector

WEIGHED = {
    "a clean base": ("faint", "peak", "quiet peak"),
    "clean pictures only": ("probes agreement", "tail", "first", "second"),
    "the model alone": ("first", "second"),
}
"""By what is at hand, the clues that make the probability."""
SIZE = "size"
COMPARED, DEGREES, STEPS = 8, 50.0, 24
"""Directions compared with a benign update, the angle that counts as steep, and the stand-in's steps."""


T = TypeVar("T")


@dataclass(frozen=True)
class Clues:
    """The numbers, and what they were read off."""

    numbers: Mapping[str, float]
    found: Mapping[str, Found] = field(default_factory=dict[str, Found])
    probes: Mapping[str, Probed] = field(default_factory=dict[str, Probed])
    shown: Examples = Examples([])
    """The examples that changes were judged on, with what the model says of them."""
    unread: Mapping[str, str] = field(default_factory=dict[str, str])
    """Which of those that are not weighed could not be read, and why."""


def with_base(subject: Subject, base: Subject, examples: Examples, steps: int, batch_size: int, seed: int) -> Clues:
    """What can be had with a clean base and clean pictures."""
    asked = answering_itself(subject, examples, batch_size)

    def expected(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return read(base, with_pixels(encoded, pixels))

    fit, test = (prepared(subject, asked[start::2], batch_size) for start in (0, 1))
    unread = dict[str, str]()
    with frozen(subject.model), frozen(base.model):
        found = {"faint": faint(subject, expected, fit, test, steps, seed)}
        window = _beside("window", unread, lambda: windowed(subject, expected, fit, test, steps, seed))
    found |= {"window": window} if window else {}
    steep = _beside("steep", unread, lambda: _steep(subject, base, asked, examples, batch_size, seed))
    last, quiet = changed(subject, base)[-1], _quiet(subject, asked, batch_size)
    numbers = {name: number for kind, one in found.items() for name, number in _read_off(kind, one).items()}
    numbers |= {} if steep is None else {"steep": steep}
    numbers |= {
        "peak": peak(last.delta),
        "quiet peak": peak(last.delta @ quiet),
        SIZE: float(last.delta.norm() / last.base.norm().clamp_min(1e-30)),
    }
    return Clues(numbers, found, {}, asked[1::2], unread)


def with_pictures(subject: Subject, examples: Examples, steps: int, batch_size: int, seed: int) -> Clues:
    """What can be had with clean pictures alone."""
    asked = answering_itself(subject, examples, batch_size)
    fit, test = (prepared(subject, asked[start::2], batch_size) for start in (0, 1))
    with torch.no_grad():
        plain = {id(encoded): read(subject, encoded) for encoded in (*fit, *test)}

    def unmoved(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return plain[id(encoded)]

    unread = dict[str, str]()
    with frozen(subject.model):
        own = _beside("own agreement", unread, lambda: faint(subject, unmoved, fit, test, steps, seed))
        probes = probed(subject, asked[1::2], batch_size)
    numbers = {} if own is None else {"own agreement": _read_off("own", own)["own agreement"]}
    numbers |= {
        "probes agreement": max(one.consistency for one in probes.values()),
        "tail": peak([*matrices(subject).values()][-1] @ _quiet(subject, asked, batch_size)),
        **alone(subject).numbers,
    }
    return Clues(numbers, {} if own is None else {"own": own}, probes, asked[1::2], unread)


def alone(subject: Subject) -> Clues:
    """What the weights say by themselves."""
    return Clues(
        {name: peak(weight) for name, weight in zip(("first", "second"), matrices(subject).values(), strict=False)}
    )


def _beside(name: str, unread: dict[str, str], read_it: Callable[[], T]) -> T | None:
    """A clue that is shown and not weighed: None, and why, where it cannot be read."""
    try:
        return read_it()
    except torch.OutOfMemoryError:
        unread[name] = "there was no memory for it"
    except BadInput as problem:
        unread[name] = str(problem)
    return None


def _read_off(kind: str, found: Found) -> dict[str, float]:
    """The mean divergence of the quarter that it moves most, and how much one word gains."""
    highest = found.apart.divergence.sort(descending=True).values
    quarter = highest[: max(1, len(highest) // 4)].mean()
    return {kind: math.log1p(float(quarter)), f"{kind} agreement": found.apart.consistency[0]}


def _steep(
    subject: Subject, base: Subject, asked: Examples, examples: Examples, batch_size: int, seed: int
) -> float:  # fmt: skip
    """Share of the update's energy that surgery would cut out."""
    suspect = changed(subject, base)
    lessons = examples if all(example.answer for example in examples) else asked
    benign = benign_update(base, lessons, STEPS, 2 * usual_rate(base, "projector"), seed, batch_size)
    left = surgery(suspect, benign, COMPARED, DEGREES)
    cut = sum(float((one.delta - left[one.name]).square().sum()) for one in suspect)
    return cut / max(1e-30, sum(float(one.delta.square().sum()) for one in suspect))


def peak(matrix: Float[Tensor, "out inner"]) -> float:
    """The largest singular value against all of them together; 0 of nothing."""
    whole = float(matrix.norm())
    return float(singular_values(matrix)[0]) / whole if whole else 0.0


@torch.no_grad()
def _quiet(subject: Subject, examples: Examples, batch_size: int) -> Float[Tensor, "inner few"]:
    """Before the last layer, the three quarters of directions in which clean pictures vary least."""
    site = projector.hidden if len(linears(subject)) > 1 else projector.input
    held = tokens(subject, site, examples, batch_size)[0].double()
    held -= held.mean(0)
    return symmetric(held.T @ held)[1][:, : 3 * held.shape[1] // 4].float()
