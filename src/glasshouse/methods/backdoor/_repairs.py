"""How is a projector repaired, and how is a repair judged? Each repair is a unit of work of `purify`.

trial = Trial.of(subject, held_out, pairs, batch_size)
repairing = Repairing(patches, examples, training, fraction, deviations, trial)
repairing("fine-tuning", subject)             # the outcome; the subject is as before
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Bool
from torch import Tensor

from glasshouse.data.behaviours import Target
from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.engine.units import mapped
from glasshouse.methods.backdoor._defences import adversarially_pruned, fine_pruned, fine_tuned, lipschitz_pruned
from glasshouse.methods.backdoor._surgery import benign_surrogate
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.generation import MAX_NEW_TOKENS, answers
from glasshouse.model.patches import patched
from glasshouse.model.projector_differences import projector_differences, projector_linears
from glasshouse.model.subject import Subject
from glasshouse.values.deltas import Patch
from glasshouse.values.findings import Interval, NoPicture


@dataclass(frozen=True)
class Training:
    """How repairs train."""

    steps: int
    learning_rate: float
    seed: int
    batch: int


@dataclass(frozen=True)
class Repaired:
    """The model after one repair."""

    asr: Interval | None
    """Attack success rate"""
    accuracy: Interval
    """Accuracy on held-out clean examples"""
    lost: Annotated[Interval, NoPicture]
    """Accuracy before minus accuracy after, on the same examples."""
    robust_accuracy: Annotated[Interval | None, NoPicture] = None
    """Accuracy on triggered examples."""
    der: float | None = None
    """Defence effectiveness rating: 1 is all of the attack removed at no cost, one half is no gain."""

    def rated(self, before: "Repaired") -> "Repaired":
        """With its DER: (fall of the attack success rate - loss of accuracy + 1) / 2."""
        if self.asr is None or before.asr is None:
            return self
        fall = max(0.0, before.asr.value - self.asr.value)
        return replace(self, der=(fall - max(0.0, self.lost.value) + 1) / 2)


@dataclass(frozen=True)
class Trial:
    """Held-out examples on which repairs are judged."""

    clean: ForcedDecoding
    before: Bool[Tensor, " examples"]
    """Which clean examples are answered correctly before any repair."""
    triggered: Examples
    for_target: ForcedDecoding | None
    for_truth: ForcedDecoding | None
    batch_size: int

    @classmethod
    def of(cls, subject: Subject, held_out: Examples, pairs: Pairs | None, batch_size: int) -> "Trial":
        """Encoded once, and answered before any repair."""
        clean, triggered = ForcedDecoding.of(subject, held_out, batch_size), pairs.triggered if pairs else Examples([])
        return cls(
            clean, clean.score(subject).hits, triggered,
            for_target=ForcedDecoding.of(subject, triggered, batch_size) if pairs else None,
            for_truth=ForcedDecoding.of(subject, pairs.triggered_for_truth, batch_size) if pairs else None,
            batch_size=batch_size,
        )  # fmt: skip

    @torch.no_grad()
    def outcome(self, subject: Subject, patch: Patch) -> Repaired:
        """What the model does under this patch."""
        with patched(subject, patch):
            clean = self.clean.score(subject)
            lost = Interval.loss(self.before, clean.hits)
            robust = self.for_truth.score(subject).rate if self.for_truth else None
            return Repaired(self._asr(subject), clean.rate, lost, robust)

    def _asr(self, subject: Subject) -> Interval | None:
        """Attack success rate. Targets that may stand anywhere in an answer are looked for in generated answers: forced
        decoding knows only one position."""
        targets = [Target.of(example) for example in self.triggered]
        if self.for_target is None or not any(target and target.match == "contains" for target in targets):
            return self.for_target and self.for_target.score(subject).rate
        texts = answers(subject, self.triggered, MAX_NEW_TOKENS, self.batch_size)
        hits = [bool(target and target.shown(text)) for target, text in zip(targets, texts, strict=True)]
        return Interval.rate(sum(hits), len(hits))


def repairs_without_base(subject: Subject) -> tuple[str, ...]:
    """The repairs that need no base and that this projector allows: two of them silence hidden neurons."""
    hidden = len(projector_linears(subject)) > 1
    return ("fine-tuning", "CLP", "fine-pruning", "ANP") if hidden else ("fine-tuning", "CLP")


@dataclass(frozen=True)
class Repairing:
    """Repairs the suspect in the way that is named, and judges the repair."""

    patches: Mapping[str, Patch]
    """Repairs that are made already, by name."""
    examples: Examples
    training: Training
    fraction: float
    """Fraction of hidden neurons that fine-pruning silences."""
    deviations: float
    """Standard deviations above the mean from which CLP silences a row."""
    trial: Trial

    def __call__(self, repair: str, subject: Subject) -> Repaired:
        """The outcome of one repair."""
        return self.trial.outcome(subject, self._patch(repair, subject))

    def _patch(self, repair: str, subject: Subject) -> Patch:
        how = self.training
        training = how.steps, how.learning_rate, how.seed, how.batch
        match repair:
            case "fine-tuning":
                return fine_tuned(subject, self.examples, *training)
            case "CLP":
                return lipschitz_pruned(subject, self.deviations)
            case "fine-pruning":
                return fine_pruned(subject, self.examples, self.fraction, *training)
            case "ANP":
                return adversarially_pruned(subject, self.examples, how.steps, how.batch)
            case _:
                return self.patches[repair]


@dataclass(frozen=True)
class Surrogate:
    """What stands in for a benign update."""

    update: Mapping[str, Tensor]
    """By weight."""


def benign_update(
    base: Subject, benign: Subject | None, examples: Examples, training: Training
) -> Mapping[str, Tensor]:
    """By weight, the supplied benign update, or else its surrogate."""
    if benign is not None and (update := {layer.name: layer.delta for layer in projector_differences(benign, base)}):
        return update
    handles = {"base": base, "training": training}
    return mapped(_surrogate, [examples], Surrogate, handles=handles, name="benign surrogate")[0].update


def _surrogate(examples: Examples, base: Subject, training: Training) -> Surrogate:
    return Surrogate(
        benign_surrogate(base, examples, training.steps, training.learning_rate, training.seed, training.batch)
    )
