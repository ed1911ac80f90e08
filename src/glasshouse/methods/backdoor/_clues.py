"""Which numbers tell a backdoored projector from a benign one, when nobody knows the trigger?

Each clue is one number that is higher where something was planted. Which can be had depends on what is at hand:

with a clean base     faint, faint agreement, window, window agreement: how far the model leaves its base behind under
                      one trained change of the picture, and how much it is then one word that is said; steep: the share
                      of the update that stands away from a benign one; peak: how much of the last layer's update is
                      one direction
with clean pictures   probes agreement, own agreement: one word gained under known stamps, or under a trained change,
                      against the clean picture; tail: the gain of the projector where clean pictures do not go
with the model alone  first, second: the largest singular value of each layer against the middle one

Those of the window, and agreement under the faint change, are shown and not weighed: with few known organisms few
clues tell more than many. That was chosen on those organisms alone, leaving out one pair at a time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._changed import changed, linears
from glasshouse.methods.backdoor._inversion import Found, faint, windowed
from glasshouse.methods.backdoor._planting import usual_rate
from glasshouse.methods.backdoor._probes import Probed, probed
from glasshouse.methods.backdoor._readings import answering_itself, prepared, read, with_pixels
from glasshouse.methods.backdoor._shift import tokens
from glasshouse.methods.backdoor._surgery import benign_update, surgery
from glasshouse.model.finder import unwrapped
from glasshouse.model.frozen import frozen
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import symmetric
from glasshouse.numerics.spectra import singular_values
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector

WEIGHED = {
    "a clean base": ("faint", "steep", "peak"),
    "clean pictures only": ("own agreement", "probes agreement", "tail"),
    "the model alone": ("first", "second"),
}
"""By what is at hand, the clues that make the probability."""
COMPARED, DEGREES, STEPS = 8, 50.0, 24
"""Directions compared with a benign update, the angle that counts as steep, and the stand-in's steps."""


@dataclass(frozen=True)
class Clues:
    """The numbers, and what they were read off."""

    numbers: Mapping[str, float]
    found: Mapping[str, Found] = field(default_factory=dict[str, Found])
    probes: Mapping[str, Probed] = field(default_factory=dict[str, Probed])
    shown: Examples = Examples([])
    """The examples that changes were judged on, with what the model says of them."""


def with_base(subject: Subject, base: Subject, examples: Examples, steps: int, batch_size: int, seed: int) -> Clues:
    """What can be had with a clean base and clean pictures."""
    asked = answering_itself(subject, examples, batch_size)

    def expected(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return read(base, with_pixels(encoded, pixels))

    fit, test = (prepared(subject, asked[start::2], batch_size) for start in (0, 1))
    with frozen(subject.model), frozen(base.model):
        found = {"faint": faint(subject, expected, fit, test, steps, seed)}
        window = windowed(subject, expected, fit, test, steps, seed)
    found |= {"window": window} if window else {}
    numbers = {name: number for kind, one in found.items() for name, number in _read_off(kind, one).items()}
    numbers |= {"steep": _steep(subject, base, asked, examples, seed), "peak": peak(subject, base)}
    return Clues(numbers, found, {}, asked[1::2])


def with_pictures(subject: Subject, examples: Examples, steps: int, batch_size: int, seed: int) -> Clues:
    """What can be had with clean pictures alone."""
    asked = answering_itself(subject, examples, batch_size)
    fit, test = (prepared(subject, asked[start::2], batch_size) for start in (0, 1))
    with torch.no_grad():
        plain = {id(encoded): read(subject, encoded) for encoded in (*fit, *test)}

    def unmoved(encoded: Encoded, pixels: Tensor) -> list[Tensor]:
        return plain[id(encoded)]

    with frozen(subject.model):
        own, probes = faint(subject, unmoved, fit, test, steps, seed), probed(subject, asked[1::2], batch_size)
    numbers = {
        "own agreement": _read_off("own", own)["own agreement"],
        "probes agreement": max(one.consistency for one in probes.values()),
        "tail": _tail(subject, asked, batch_size),
    }
    return Clues(numbers, {"own": own}, probes, asked[1::2])


def alone(subject: Subject) -> Clues:
    """What the weights say by themselves."""
    known, numbers = dict(unwrapped(subject.model).named_parameters()), dict[str, float]()
    for name, path in zip(("first", "second"), linears(subject), strict=False):
        if known[f"{path}.weight"].is_meta or not known[f"{path}.weight"].is_floating_point():
            raise BadInput(f"{subject.name}: {path} is quantised or offloaded; open the model whole")
        values = singular_values(known[f"{path}.weight"].detach().float().cpu())
        numbers[name] = math.log(float(values[0] / values.median().clamp_min(1e-12)))
    return Clues(numbers)


def _read_off(kind: str, found: Found) -> dict[str, float]:
    """The mean divergence of the quarter that it moves most, and how much one word gains."""
    highest = found.apart.divergence.sort(descending=True).values
    quarter = highest[: max(1, len(highest) // 4)].mean()
    return {kind: math.log1p(float(quarter)), f"{kind} agreement": found.apart.consistency[0]}


def _steep(subject: Subject, base: Subject, asked: Examples, examples: Examples, seed: int) -> float:
    """Share of the update's energy that surgery would cut out."""
    suspect = changed(subject, base)
    lessons = examples if all(example.answer for example in examples) else asked
    benign = benign_update(base, lessons, STEPS, 2 * usual_rate(base, "projector"), seed)
    left = surgery(suspect, benign, COMPARED, DEGREES)
    cut = sum(float((one.delta - left[one.name]).square().sum()) for one in suspect)
    return cut / max(1e-30, sum(float(one.delta.square().sum()) for one in suspect))


@torch.no_grad()
def peak(subject: Subject, base: Subject) -> float:
    """The largest singular value of the last layer's update against all of them together; 0 where nothing changed."""
    delta = changed(subject, base)[-1].delta
    whole = float(delta.norm())
    return float(singular_values(delta)[0]) / whole if whole else 0.0


@torch.no_grad()
def _tail(subject: Subject, examples: Examples, batch_size: int) -> float:
    """Of the last layer: its largest gain over the three quarters of directions in which clean pictures vary least,
    against the middle one there."""
    known = dict(unwrapped(subject.model).named_parameters())
    weight = known[f"{linears(subject)[-1]}.weight"].detach().float().cpu()
    site = projector.hidden if len(linears(subject)) > 1 else projector.input
    held = tokens(subject, site, examples, batch_size)[0].double()
    held -= held.mean(0)
    quiet = symmetric(held.T @ held)[1][:, : 3 * held.shape[1] // 4].float()
    values = singular_values(weight @ quiet)
    return math.log(float(values[0] / values.median().clamp_min(1e-12)))
