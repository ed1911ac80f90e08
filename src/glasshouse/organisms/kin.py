"""Who is related to whom, known for certain? Relatives of an opened model: derived from it, never stored.

    Pruned(0.3).of(subject)                  a new Subject, organism:base~pruned(0.3), proved again
    FineTuned(300, 1e-4, seed=0).of(subject, examples)
    Merged(0.5).of(subject, other)
    relation("rotated(7)")                   the relation its text names; str(Rotated(7)) is that text

    preserves what the model says    Permuted, Rotated, Rescaled: other weights, the same logits
    changes it                       FineTuned, Pruned, Thinned, Merged, Quantised
    is related to nothing            Stranger: the same architecture, weights drawn anew

A relation is data. Most are a `Patch` (`patch_for`), put on a copy of the model; the subject given keeps its bits. One
that preserves the function is tried on an example first, for the names of layers do not tell all that happens in them.
"""

import json
import re
from dataclasses import dataclass, fields
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.finder import unwrapped
from glasshouse.model.subject import Subject
from glasshouse.model.training import Schedule, answer_loss, train
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms._making import (
    Derived,
    Drafts,
    Relation,
    copied,
    fresh,
    language_weights,
    opened,
    permuted,
    read_ends,
    read_layers,
    require,
    scaled,
    sizes,
    turned,
    without_least,
)
from glasshouse.values.codec import unpack
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput

WIDEST = 4.0
"""`Rescaled` scales by at most this, and by no less than its inverse."""


@dataclass(frozen=True)
class FineTuned(Relation):
    """Trained further: all language weights, embeddings included, on the answers of examples."""

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
        silent = next((example.id for example in examples if not example.answer), None)
        require(silent is None, self, f"example {silent} has no answer to learn; give it one or leave it out")
        name = f"{subject.name}~{self}"
        pupil = Subject(copied(subject), subject.prompts.given, name)
        weights = dict(unwrapped(pupil.model).named_parameters())
        parameters = {place: weights[name] for place, name in language_weights(pupil).items()}
        end = getattr(pupil.prompts.tokenizer, "eos_token_id", None)

        def loss(step: int) -> Tensor:
            drawn = torch.randint(len(examples), (self.batch,), generator=seeded(self.seed * 1_000_003 + step))
            encoded = pupil.encode([examples[place] for place in drawn.tolist()], answers=True)
            return answer_loss(pupil.forward(encoded).logits, encoded, end)

        pupil.model.requires_grad_(False)  # only what is trained needs a gradient
        with torch.enable_grad():
            train(parameters, loss, Schedule(self.steps, self.learning_rate, warmup=self.steps // 10), name=name)
        for new, own in zip(pupil.model.parameters(), subject.model.parameters(), strict=True):
            new.requires_grad_(own.requires_grad)
        return opened(pupil.model, subject, name)


@dataclass(frozen=True)
class Pruned(Derived):
    """The smallest weights set to zero: a share of every matrix in every block."""

    share: float

    def __post_init__(self) -> None:
        require(0 <= self.share < 1, self, "the share lies between 0 and 1, and is not 1")

    def patch_for(self, subject: Subject) -> Patch:
        drafts = Drafts(subject)
        for layer in read_layers(subject):
            for linear in layer.linears:
                weight = drafts[f"{linear}.weight"]
                smallest = weight.abs().flatten().argsort(stable=True)[: round(self.share * weight.numel())]
                drafts[f"{linear}.weight"] = weight.flatten().index_fill(0, smallest, 0).view_as(weight)
        return drafts.patch()


@dataclass(frozen=True)
class Thinned(Derived):
    """Whole units gone: in every block the share of MLP neurons and the number of attention heads that matter least.

    What they write is set to zero (columns of down_proj and o_proj) and shapes stay: their activations can still be
    recorded, but nothing reads them. A key and value all of whose heads are dropped are gone with them. What a unit
    matters is the product of its norms (gate, up, down; value, output), the same after `Rescaled` and `Permuted`.
    """

    neurons: float
    heads: int

    def __post_init__(self) -> None:
        fits = 0 <= self.neurons < 1 and self.heads >= 0
        require(fits, self, "the share of neurons lies between 0 and 1, and is not 1; heads are counted from 0")

    def patch_for(self, subject: Subject) -> Patch:
        drafts = Drafts(subject)
        for layer in read_layers(subject):
            require(self.heads < layer.heads, self, f"{subject.name} has {layer.heads} heads a layer; leave one")
            parts = (layer.gate, layer.up, layer.down, layer.value, layer.output)
            gate, up, down, value, output = (drafts[f"{linear}.weight"] for linear in parts)
            neurons = sizes(gate, layer.neurons) * sizes(up, layer.neurons) * sizes(down.T, layer.neurons)
            heads = sizes(output.T, layer.heads).view(layer.groups, -1) * sizes(value, layer.groups)[:, None]
            drafts.inputs(layer.down, scaled(without_least(neurons, round(self.neurons * layer.neurons))))
            drafts.inputs(layer.output, scaled(without_least(heads.flatten(), self.heads)))
        return drafts.patch()


@dataclass(frozen=True)
class Merged(Relation):
    """On the straight line between the language weights of two models: 0 is the first, 1 the other."""

    share: float

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, self, "the share lies between 0 and 1")

    def patch_for(self, subject: Subject, other: Subject) -> Patch:
        """What makes the subject the relative of both."""
        first, second, own, others = Drafts(subject), Drafts(other), language_weights(subject), language_weights(other)
        apart = sorted({place for place, _ in first.shapes(own) ^ second.shapes(others)})
        if apart:
            raise BadInput(f"{self}: {subject.name} and {other.name} differ in the shape of {', '.join(apart[:3])}")
        for place, name in own.items():
            first[name] = first[name].lerp(second[others[place]], self.share)
        return first.patch()

    def of(self, subject: Subject, other: Subject) -> Subject:
        """The relative of both, opened and proved; eyes, projector and processor are the first one's."""
        model = copied(subject, self.patch_for(subject, other))
        return opened(model, subject, f"{subject.name}~{self} with {other.name}")


@dataclass(frozen=True)
class Permuted(Derived):
    """Units in another order, in every block: neurons, groups of heads, and heads within their group."""

    preserves: ClassVar[bool] = True
    seed: int

    def patch_for(self, subject: Subject) -> Patch:
        drafts, generator = Drafts(subject), seeded(self.seed)
        for layer in read_layers(subject):
            neurons = permuted(torch.randperm(layer.neurons, generator=generator))
            group_order = torch.randperm(layer.groups, generator=generator)
            places = torch.arange(layer.heads).view(layer.groups, -1)
            within = [group[torch.randperm(len(group), generator=generator)] for group in places[group_order]]
            heads, groups = permuted(torch.cat(within)), permuted(group_order)
            for linear, change in ((layer.gate, neurons), (layer.up, neurons), (layer.query, heads),
                                   (layer.key, groups), (layer.value, groups)):  # fmt: skip
                drafts.outputs(linear, change)
            drafts.inputs(layer.down, neurons)
            drafts.inputs(layer.output, heads)
        return drafts.patch()


@dataclass(frozen=True)
class Rotated(Derived):
    """The language tower's stream in another basis, a random orthogonal one.

    The gains of the norms are folded into what reads them first and become 1: a norm without gain does not see the
    basis. Then everything that writes to the stream (embeddings, projector, o_proj, down_proj) and everything that
    reads it (q, k, v, gate, up, lm_head) is turned.
    """

    preserves: ClassVar[bool] = True
    seed: int

    def patch_for(self, subject: Subject) -> Patch:
        drafts, layers, ends = Drafts(subject), read_layers(subject), read_ends(subject)
        turn = turned(subject.anatomy.tower("language").width, self.seed)
        for layer in layers:
            drafts.fold(layer.attention_norm, layer.query, layer.key, layer.value)
            drafts.fold(layer.mlp_norm, layer.gate, layer.up)
            for reader in (layer.query, layer.key, layer.value, layer.gate, layer.up):
                drafts.inputs(reader, turn)
            drafts.outputs(layer.output, turn)
            drafts.outputs(layer.down, turn)
        drafts.fold(ends.final_norm, ends.unembedding)
        drafts.inputs(ends.unembedding, turn)
        drafts.inputs(ends.embedding, turn)  # a word's row is what it writes: turned from the right, like a reader
        if ends.projection is not None:
            drafts.outputs(ends.projection, turn)
        return drafts.patch()


@dataclass(frozen=True)
class Rescaled(Derived):
    """What is written larger is read smaller: up_proj against down_proj by neuron, v_proj against o_proj by group."""

    preserves: ClassVar[bool] = True
    seed: int

    def patch_for(self, subject: Subject) -> Patch:
        drafts, generator = Drafts(subject), seeded(self.seed)

        def factors(units: int) -> Tensor:
            return (torch.rand(units, generator=generator, dtype=torch.float64) * 2 - 1).mul(log(WIDEST)).exp()

        for layer in read_layers(subject):
            neurons, groups = factors(layer.neurons), factors(layer.groups)
            drafts.outputs(layer.up, scaled(neurons))
            drafts.inputs(layer.down, scaled(1 / neurons))
            drafts.outputs(layer.value, scaled(groups))
            drafts.inputs(layer.output, scaled(1 / groups))  # a group's heads lie side by side
        return drafts.patch()


@dataclass(frozen=True)
class Quantised(Derived):
    """Every matrix of every block rounded to few levels, a scale a row, and back to its own type."""

    bits: Literal[8, 4] = 8

    def __post_init__(self) -> None:
        require(self.bits in (8, 4), self, "there are 8 and 4 bits")

    def patch_for(self, subject: Subject) -> Patch:
        drafts, levels = Drafts(subject), 2 ** (self.bits - 1) - 1
        for layer in read_layers(subject):
            for linear in layer.linears:
                weight = drafts[f"{linear}.weight"]
                step = (weight.abs().amax(1, keepdim=True) / levels).clamp_min(torch.finfo(weight.dtype).tiny)
                drafts[f"{linear}.weight"] = (weight / step).round() * step
        return drafts.patch()


@dataclass(frozen=True)
class Stranger(Relation):
    """The same architecture, every weight drawn anew, the eyes' too: no relative at all.

    With `matched`, each weight tensor has the mean and spread of the subject's: its size is then not what tells it.
    """

    seed: int
    matched: bool = False

    def patch_for(self, subject: Subject) -> Patch:
        """The weights drawn anew with the moments of the subject's."""
        drafts, generator = Drafts(subject), seeded(self.seed)
        for name, _ in unwrapped(subject.model).named_parameters():
            own = drafts[name]
            noise = torch.randn(own.shape, generator=generator, dtype=own.dtype)
            drafts[name] = own.mean() + own.std(correction=0) * noise
        return drafts.patch()

    def of(self, subject: Subject) -> Subject:
        """The stranger, opened and proved."""
        model = copied(subject, self.patch_for(subject)) if self.matched else fresh(subject, self.seed)
        return opened(model, subject, f"{subject.name}~{self}")


RELATIONS: dict[str, type[Relation]] = {
    kind.word(): kind for kind in (FineTuned, Pruned, Thinned, Merged, Permuted, Rotated, Rescaled, Quantised, Stranger)
}


def relation(text: str) -> Relation:
    """The relation that its text names: `pruned(0.3)`. Values in the order of the fields; the last may be left out."""
    parsed = re.fullmatch(r"([a-z-]+)\((.*)\)", text)
    kind = RELATIONS.get(parsed[1]) if parsed else None
    if parsed is None or kind is None:
        raise BadInput(f"{text}: no such relation; there is {', '.join(RELATIONS)}, written like pruned(0.3)")
    names = [field.name for field in fields(kind)]
    try:
        values = json.loads(f"[{parsed[2]}]")
        return unpack(kind, dict(zip(names[: len(values)], values, strict=True)))
    except (ValueError, RecursionError):  # no JSON, or more values than names
        raise BadInput(f"{text}: write it as {kind.word()}({','.join(names)}), with numbers") from None
