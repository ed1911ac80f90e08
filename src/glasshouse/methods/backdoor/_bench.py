"""What does a model do with only a part of its projector's update? The update taken apart, and a bench to try it on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._changed import Changed, changed, changed_biases
from glasshouse.methods.backdoor._rehearsed import Rehearsed, Scores
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import svd
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import rotated
from glasshouse.values.deltas import Dense, Patch, Whole
from glasshouse.values.findings import Interval


@dataclass(frozen=True)
class Tried:
    """One state of the projector: how often the trigger works, how surely, and how often clean answers are right."""

    success: Interval
    surety: float
    """Mean log-probability of the target's first token."""
    right: Interval | None = None

    @classmethod
    def of(cls, scores: Scores, right: Interval | None = None) -> "Tried":
        return cls(scores.rate, float(scores.first.double().mean()), right)


@dataclass(frozen=True)
class Parts:
    """One layer's update, by its directions."""

    change: Changed

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        return svd(self.change.delta)

    @property
    def count(self) -> int:
        return min(self.change.delta.shape)

    def of(self, chosen: Iterable[int]) -> Float[Tensor, "out inner"]:
        """The chosen directions, numbered from 0, with their singular values."""
        left, values, rows = self._svd
        picked = list(chosen)
        return (left[:, picked] * values[picked]) @ rows[picked]

    def haar(self, count: int, seed: int) -> Float[Tensor, "out inner"]:
        """As many directions drawn evenly, with the first singular values."""
        out, inner = self.change.delta.shape
        return rotated(self._svd[1][:count], out, inner, seed)

    def others(self, count: int, seed: int) -> Float[Tensor, "out inner"]:
        """As many of the update's own directions, from behind the first so many, with the first's energy."""
        _, values, _ = self._svd
        later = count + torch.randperm(self.count - count, generator=seeded(seed))[:count]
        if not len(later):
            return torch.zeros_like(self.change.delta)
        part = self.of(later.tolist())
        return part * float(values[:count].norm() / part.norm().clamp_min(1e-30))


class Bench:
    """Base and suspect with their examples, looked at once: `update` makes a patch, `tried` says what it does."""

    def __init__(
        self, subject: Subject, base: Subject, examples: Examples, triggered: Examples, batch_size: int
    ) -> None:
        self.subject = subject
        self.layers = [Parts(change) for change in changed(subject, base)]
        self.biases = changed_biases(subject, base)
        self.clean = Rehearsed.of(subject, examples, batch_size)
        self.attacked = Rehearsed.of(subject, triggered, batch_size)

    def update(self, part: Callable[[Parts], Tensor], *, biases: bool = True) -> Patch:
        """The patch that leaves of every layer's update only a part, and of the biases' all or nothing."""
        return self.updates([part(layer) for layer in self.layers], biases=biases)

    def updates(self, given: Sequence[Tensor], *, biases: bool = True) -> Patch:
        """The patch that puts these on the base's matrices."""
        weights = {
            layer.change.name: Whole(layer.change.base + delta) for layer, delta in zip(self.layers, given, strict=True)
        }
        taken = {} if biases else {name: Dense(-delta) for name, delta in self.biases.items()}
        return Patch({**weights, **taken})

    def tried(self, patch: Patch | None = None, *, clean: bool = False) -> Tried:
        """What the suspect does with this patch on it; with `clean`, also on clean examples."""
        with patched(self.subject, patch or Patch({})):
            scores = self.attacked.tried(self.subject)
            right = self.clean.tried(self.subject).rate if clean else None
        return Tried.of(scores, right)

    def null(self, part: Callable[[Parts, int], Tensor], draws: Sequence[int]) -> Tried:
        """Random parts: what the draw does that does most. Draws are tried on the same examples, so they do not add."""
        found: list[Scores] = []
        for seed in draws:
            with patched(self.subject, self.update(lambda layer, seed=seed: part(layer, seed))):
                found.append(self.attacked.tried(self.subject))
        return Tried.of(max(found, key=lambda one: (one.rate.value, float(one.first.mean()))))


Points = Mapping[int, Tried]
