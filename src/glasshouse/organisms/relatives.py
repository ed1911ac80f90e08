"""Which models are related by construction? Relatives of an opened model: derived from it, never stored.

    Pruned(0.3).of(subject)                  a new Subject, organism:base~pruned(0.3), proved again
    FineTuned(300, 1e-4, seed=0).of(subject, examples)
    Merged(0.5).of(subject, other)
    relation("rotated(7)")                   the relation its text names; str(Rotated(7)) is that text

    the same logits      Permuted, Rotated, Rescaled: other weights, the same function
    other logits         FineTuned, Pruned, Thinned, Merged, Quantised
    unrelated            Stranger: the same architecture, weights drawn anew

A relation is data. Most are a `Patch` (`patch_for`) on a copy of the model; the subject itself stays unchanged. A
relation that preserves the function is checked on an example first, because names of layers do not prove what they do.
"""

import json
import re
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.finder import unwrapped
from glasshouse.model.subject import Subject
from glasshouse.model.training import Schedule, answer_loss, train
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms.derivation import (
    Change,
    Derived,
    Drafts,
    Relation,
    opened,
    patched_copy,
    reinitialised,
    require,
    scaled,
    sizes,
    without_least,
)
from glasshouse.organisms.llama_layers import language_weights, read_layers
from glasshouse.organisms.symmetries import Permuted, Rescaled, Rotated
from glasshouse.values.codec import unpack
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput


@dataclass(frozen=True)
class FineTuned(Relation):
    """Trained further on the answers of examples: all language weights, embeddings included."""

    steps: int
    learning_rate: float
    seed: int
    batch: int = 16

    def __post_init__(self) -> None:
        require(self.batch >= 1, self, "a batch has at least 1 example")
        Schedule(self.steps, self.learning_rate)

    def of(self, subject: Subject, examples: Examples) -> Subject:
        """The relative, opened and proved."""
        require(len(examples) > 0, self, "there are no examples to train on")
        unanswered = next((example.id for example in examples if not example.answer), None)
        require(unanswered is None, self, f"example {unanswered} has no answer to learn; add it or leave it out")
        name = f"{subject.name}~{self}"
        relative = Subject(patched_copy(subject), subject.prompts.original, name)
        weights = dict(unwrapped(relative.model).named_parameters())
        parameters = {place: weights[name] for place, name in language_weights(relative).items()}
        end = getattr(relative.prompts.tokenizer, "eos_token_id", None)

        def loss(step: int) -> Tensor:
            batch = torch.randint(len(examples), (self.batch,), generator=seeded(self.seed * 1_000_003 + step))
            encoded = relative.encode([examples[place] for place in batch.tolist()], answers=True)
            return answer_loss(relative.forward(encoded).logits, encoded, end)

        relative.model.requires_grad_(False)  # only the trained weights need a gradient
        with torch.enable_grad():
            train(parameters, loss, Schedule(self.steps, self.learning_rate, warmup=self.steps // 10), name=name)
        for copy, original in zip(relative.model.parameters(), subject.model.parameters(), strict=True):
            copy.requires_grad_(original.requires_grad)
        return opened(relative.model, subject, name)


@dataclass(frozen=True)
class Pruned(Derived):
    """The smallest weights set to zero: a fraction of every matrix in every layer."""

    share: float

    def __post_init__(self) -> None:
        require(0 <= self.share < 1, self, "the fraction is at least 0 and below 1")

    def patch_for(self, subject: Subject) -> Patch:
        def pruned(weight: Tensor) -> Tensor:
            smallest = weight.abs().flatten().argsort(stable=True)[: round(self.share * weight.numel())]
            return weight.flatten().index_fill(0, smallest, 0).view_as(weight)

        return _every_matrix(subject, pruned)


@dataclass(frozen=True)
class Thinned(Derived):
    """The least important MLP neurons (a fraction) and attention heads (a number) of every layer removed.

    Their columns of down_proj and o_proj become zero and shapes stay, so their activations can still be recorded but
    affect nothing. The importance of a unit is the product of its norms (gate, up, down; value, output), which is the
    same after `Rescaled` and `Permuted`.
    """

    neurons: float
    heads: int

    def __post_init__(self) -> None:
        fits = 0 <= self.neurons < 1 and self.heads >= 0
        require(fits, self, "the fraction of neurons is at least 0 and below 1; the number of heads is at least 0")

    def patch_for(self, subject: Subject) -> Patch:
        drafts = Drafts(subject)
        for layer in read_layers(subject):
            require(self.heads < layer.heads, self, f"{subject.name} has {layer.heads} heads a layer; keep at least 1")
            parts = (layer.gate, layer.up, layer.down, layer.value, layer.output)
            gate, up, down, value, output = (drafts[f"{linear}.weight"] for linear in parts)
            neurons = sizes(gate, layer.neurons) * sizes(up, layer.neurons) * sizes(down.T, layer.neurons)
            heads = sizes(output.T, layer.heads).view(layer.groups, -1) * sizes(value, layer.groups)[:, None]
            drafts.inputs(layer.down, scaled(without_least(neurons, round(self.neurons * layer.neurons))))
            drafts.inputs(layer.output, scaled(without_least(heads.flatten(), self.heads)))
        return drafts.patch()


@dataclass(frozen=True)
class Merged(Relation):
    """A linear interpolation between the language weights of two models: 0 is the first, 1 the second."""

    share: float

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, self, "the weight of the second model lies between 0 and 1")

    def patch_for(self, subject: Subject, other: Subject) -> Patch:
        """The patch from the subject to the relative of both."""
        first, second = Drafts(subject), Drafts(other)
        names, other_names = language_weights(subject), language_weights(other)
        apart = sorted({place for place, _ in first.shapes(names) ^ second.shapes(other_names)})
        if apart:
            raise BadInput(f"{self}: {subject.name} and {other.name} differ in the shape of {', '.join(apart[:3])}")
        for place, name in names.items():
            first[name] = first[name].lerp(second[other_names[place]], self.share)
        return first.patch()

    def of(self, subject: Subject, other: Subject) -> Subject:
        """The relative of both, opened and proved, with the first model's vision tower, projector and processor."""
        model = patched_copy(subject, self.patch_for(subject, other))
        return opened(model, subject, f"{subject.name}~{self} with {other.name}")


@dataclass(frozen=True)
class Quantised(Derived):
    """Every matrix of every layer rounded to 2^bits - 1 levels with a scale for each row, in its own dtype."""

    bits: Literal[8, 4] = 8

    def __post_init__(self) -> None:
        require(self.bits in (8, 4), self, "bits are 8 or 4")

    def patch_for(self, subject: Subject) -> Patch:
        levels = 2 ** (self.bits - 1) - 1

        def quantised(weight: Tensor) -> Tensor:
            step = (weight.abs().amax(1, keepdim=True) / levels).clamp_min(torch.finfo(weight.dtype).tiny)
            return (weight / step).round() * step

        return _every_matrix(subject, quantised)


@dataclass(frozen=True)
class Stranger(Relation):
    """An unrelated model: the same architecture, every weight drawn anew, those of the vision tower too.

    With `matched`, each weight tensor has the subject's mean and standard deviation, so its size reveals nothing.
    """

    seed: int
    matched: bool = False

    def patch_for(self, subject: Subject) -> Patch:
        """Weights drawn anew with the moments of the subject's."""
        drafts, generator = Drafts(subject), seeded(self.seed)
        for name, _ in unwrapped(subject.model).named_parameters():
            weight = drafts[name]
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            drafts[name] = weight.mean() + weight.std(correction=0) * noise
        return drafts.patch()

    def of(self, subject: Subject) -> Subject:
        """The stranger, opened and proved."""
        model = patched_copy(subject, self.patch_for(subject)) if self.matched else reinitialised(subject, self.seed)
        return opened(model, subject, f"{subject.name}~{self}")


def _every_matrix(subject: Subject, change: Change) -> Patch:
    """The patch that changes every matrix of every layer on its own."""
    drafts = Drafts(subject)
    for layer in read_layers(subject):
        for linear in layer.linears:
            drafts[f"{linear}.weight"] = change(drafts[f"{linear}.weight"])
    return drafts.patch()


_KINDS = (FineTuned, Pruned, Thinned, Merged, Permuted, Rotated, Rescaled, Quantised, Stranger)
RELATIONS: dict[str, type[Relation]] = {kind.label(): kind for kind in _KINDS}


def relation(text: str) -> Relation:
    """The relation of a text such as `pruned(0.3)`: values in the order of the fields; the last may be omitted."""
    parsed = re.fullmatch(r"([a-z-]+)\((.*)\)", text)
    kind = RELATIONS.get(parsed[1]) if parsed else None
    if parsed is None or kind is None:
        raise BadInput(f"{text}: no such relation; choose from {', '.join(RELATIONS)}, written like pruned(0.3)")
    names = [field.name for field in fields(kind)]
    try:
        values = json.loads(f"[{parsed[2]}]")
        return unpack(kind, dict(zip(names[: len(values)], values, strict=True)))
    except (ValueError, RecursionError):  # not JSON, or more values than names
        raise BadInput(f"{text}: write it as {kind.label()}({','.join(names)}), with numbers") from None
