"""Which part of a projector's update may stay? What stands away from a benign update is cut out, the rest is kept in
the least measure that clean examples do not miss.

    found = search(subject, base, examples, reference, ranks=(3, 5, 8), kept=(0.25, 0.5, 1.0), degrees=50)
    found.patch, found.chosen
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._changed import Changed, changed, changed_biases
from glasshouse.methods.backdoor._defences import tuned
from glasshouse.methods.backdoor._rehearsed import Rehearsed
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import orthonormal
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import leading, principal
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Interval


@dataclass(frozen=True)
class Cut:
    """One way to cut, and what is right on the clean examples afterwards."""

    directions: int
    """How many leading directions were compared with the benign update's."""
    kept: float
    """The measure in which what was not cut out stays."""
    right: Interval


@dataclass(frozen=True)
class Searched:
    """All that was tried, what was chosen, and what stands beside it."""

    tried: tuple[Cut, ...]
    chosen: Cut
    patch: Patch
    shrunk: Patch
    """Null: the update in the same measure, with nothing cut out."""
    random: Patch
    """Null: in the same measure, with as many random directions cut out."""


def surgery(suspect: Sequence[Changed], benign: Mapping[str, Tensor], count: int, degrees: float) -> dict[str, Tensor]:
    """By weight, the update less what it does to the directions, among its first so many, that stand steeper than
    `degrees` to the first so many of the benign update."""
    left: dict[str, Tensor] = {}
    for one in suspect:
        steep = _steep(one.delta, benign[one.name], count, degrees)
        left[one.name] = one.delta - (one.delta @ steep) @ steep.T
    return left


def _steep(delta: Tensor, benign: Tensor, count: int, degrees: float) -> Float[Tensor, "inner k"]:
    cosines, turned = principal(leading(delta, count)[2], leading(benign, count)[2])
    return turned[:, torch.rad2deg(torch.acos(cosines)) > degrees]


def benign_update(
    base: Subject, examples: Examples, steps: int, rate: float, seed: int, batch: int
) -> dict[str, Tensor]:  # fmt: skip
    """What a short training of the base on clean examples changes: a stand-in for a true benign update."""
    deltas = tuned(base, examples, steps, rate, seed, batch).deltas
    return {name: delta.values for name, delta in deltas.items() if isinstance(delta, Dense)}


def restored(subject: Subject, base: Subject) -> Patch:
    """All of it taken back: the base's projector."""
    suspect = changed(subject, base)
    return _keeping(suspect, changed_biases(subject, base), {one.name: one.delta for one in suspect}, 0.0)


def search(
    subject: Subject, base: Subject, examples: Examples, reference: Mapping[str, Tensor], *, ranks: Iterable[int],
    kept: Iterable[float], degrees: float, batch_size: int,
) -> Searched:  # fmt: skip
    """Try every number of directions with every measure; choose by right answers on the clean examples alone.

    Of those that cost at most one answer, the one that keeps least of the update, and of these the one that compares
    most directions. Nothing says that more is better, so none is assumed.
    """
    suspect, biases = changed(subject, base), changed_biases(subject, base)
    lesson = Rehearsed.of(subject, examples, batch_size)
    least = lesson.tried(subject).rate.value - 1.5 / len(examples)
    most = min(min(one.delta.shape) for one in suspect)
    ranks = [k for k in ranks if k <= most]
    if not ranks:
        raise BadInput(f"--ranks: the projector's updates have {most} directions; give smaller numbers")
    tried: list[tuple[Cut, Patch]] = []
    for count in ranks:
        left = surgery(suspect, reference, count, degrees)
        for measure in kept:
            patch = _keeping(suspect, biases, left, measure)
            with patched(subject, patch):
                tried.append((Cut(count, measure, lesson.tried(subject).rate), patch))
    cheap = [one for one in tried if one[0].right.value >= least]
    best = max(cut.right.value for cut, _ in tried)
    fit = cheap or [one for one in tried if one[0].right.value == best]
    chosen, patch = min(fit, key=lambda one: (one[0].kept, -one[0].directions))
    beside = [
        _keeping(suspect, biases, made, chosen.kept)
        for made in ({one.name: one.delta for one in suspect}, _anywhere(suspect, reference, chosen, degrees))
    ]
    return Searched(tuple(cut for cut, _ in tried), chosen, patch, *beside)


def _anywhere(
    suspect: Sequence[Changed], reference: Mapping[str, Tensor], chosen: Cut, degrees: float
) -> dict[str, Tensor]:  # fmt: skip
    """As many directions cut out of each layer as surgery does, drawn evenly."""
    made: dict[str, Tensor] = {}
    for number, one in enumerate(suspect):
        many = _steep(one.delta, reference[one.name], chosen.directions, degrees).shape[1]
        drawn = orthonormal(torch.randn(one.delta.shape[1], max(1, many), generator=seeded(number)))[0][:, :many]
        made[one.name] = one.delta - (one.delta @ drawn) @ drawn.T
    return made


def _keeping(
    suspect: Sequence[Changed], biases: Mapping[str, Tensor], left: Mapping[str, Tensor], measure: float
) -> Patch:  # fmt: skip
    """On the suspect: `measure` times what is left of each matrix's update and of the biases' instead of the whole."""
    weights = {one.name: Dense(measure * left[one.name] - one.delta) for one in suspect}
    return Patch({**weights, **{name: Dense((measure - 1) * added) for name, added in biases.items()}})
