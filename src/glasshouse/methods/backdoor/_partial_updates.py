"""What does a model do with only a part of its projector's update? Parts by singular direction, and their outcomes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.differences import WeightDifference
from glasshouse.model.forced_decoding import ForcedDecoding, Scores
from glasshouse.model.patches import patched
from glasshouse.model.projector_differences import projector_bias_deltas, projector_differences
from glasshouse.model.subject import Subject
from glasshouse.numerics.decompositions import svd
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import rotated
from glasshouse.values.deltas import Dense, Patch, Whole
from glasshouse.values.findings import Interval, NoPicture


@dataclass(frozen=True)
class Outcome:
    """What a model does with one state of its projector."""

    asr: Interval
    """Attack success rate"""
    log_probability: float
    """Mean log-probability of the target's first token on triggered examples."""
    accuracy: Annotated[Interval | None, NoPicture] = None
    """Accuracy on clean examples."""

    @classmethod
    def of(cls, scores: Scores, accuracy: Interval | None = None) -> "Outcome":
        """From scores on triggered examples."""
        return cls(scores.rate, float(scores.log_probability.double().mean()), accuracy)


OutcomeByRank = Mapping[int, Outcome]


@dataclass(frozen=True)
class LayerUpdate:
    """The update of one layer, by its singular directions."""

    difference: WeightDifference
    directions: tuple[Tensor, Tensor, Tensor]
    """Its singular value decomposition."""

    @classmethod
    def of(cls, difference: WeightDifference) -> "LayerUpdate":
        """Decomposed once, because every part of the update is made from it."""
        return cls(difference, svd(difference.delta))

    @property
    def count(self) -> int:
        """How many directions it has."""
        return min(self.difference.delta.shape)

    def part(self, directions: Iterable[int]) -> Float[Tensor, "out inner"]:
        """These directions, numbered from 0, with their singular values."""
        left, values, rows = self.directions
        chosen = list(directions)
        return (left[:, chosen] * values[chosen]) @ rows[chosen]

    def random_directions(self, count: int, seed: int) -> Float[Tensor, "out inner"]:
        """Random (Haar) directions with the first singular values."""
        out, inner = self.difference.delta.shape
        return rotated(self.directions[1][:count], out, inner, seed)

    def later_directions(self, count: int, seed: int) -> Float[Tensor, "out inner"]:
        """Directions drawn from those after the first `count`, as many of them, scaled to the first ones' energy."""
        values = self.directions[1]
        later = count + torch.randperm(self.count - count, generator=seeded(seed))[:count]
        if not len(later):
            return torch.zeros_like(self.difference.delta)
        part = self.part(later.tolist())
        return part * float(values[:count].norm() / part.norm().clamp_min(1e-30))


@dataclass(frozen=True, eq=False)
class PartialUpdates:
    """Suspect, base and examples. `keep` makes the patch that keeps a part of the update, `outcome` scores it."""

    subject: Subject
    layers: Sequence[LayerUpdate]
    biases: Mapping[str, Tensor]
    clean: ForcedDecoding
    triggered: ForcedDecoding

    @classmethod
    def of(
        cls, subject: Subject, base: Subject, examples: Examples, triggered: Examples, batch_size: int
    ) -> "PartialUpdates":
        """The updates that turn the base into the subject."""
        clean, attacked = (ForcedDecoding.of(subject, kind, batch_size) for kind in (examples, triggered))
        layers = [LayerUpdate.of(difference) for difference in projector_differences(subject, base)]
        return cls(subject, layers, projector_bias_deltas(subject, base), clean, attacked)

    def keep(self, part: Callable[[LayerUpdate], Tensor], *, biases: bool = True) -> Patch:
        """The patch that keeps a part of every layer's update, and the biases' updates or none of them."""
        return self.set_updates([part(layer) for layer in self.layers], biases=biases)

    def set_updates(self, deltas: Sequence[Tensor], *, biases: bool = True) -> Patch:
        """The patch that makes these the updates of the base's matrices."""
        weights = {
            layer.difference.name: Whole(layer.difference.base + delta)
            for layer, delta in zip(self.layers, deltas, strict=True)
        }
        without_biases = {} if biases else {name: Dense(-delta) for name, delta in self.biases.items()}
        return Patch({**weights, **without_biases})

    def outcome(self, patch: Patch | None = None, *, clean: bool = False) -> Outcome:
        """What the suspect does under this patch; with `clean`, on clean examples too."""
        with patched(self.subject, patch or Patch({})):
            scores = self.triggered.score(self.subject)
            accuracy = self.clean.score(self.subject).rate if clean else None
        return Outcome.of(scores, accuracy)

    def strongest_null(self, part: Callable[[LayerUpdate, int], Tensor], seeds: Sequence[int]) -> Outcome:
        """Of random parts, the outcome with the highest attack success: all are scored on the same examples, so they
        cannot be pooled."""
        draws: list[Scores] = []
        for seed in seeds:
            with patched(self.subject, self.keep(lambda layer, seed=seed: part(layer, seed))):
                draws.append(self.triggered.score(self.subject))
        return Outcome.of(max(draws, key=lambda draw: (draw.rate.value, float(draw.log_probability.mean()))))
