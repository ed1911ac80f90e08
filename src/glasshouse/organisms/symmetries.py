"""Which changes of the weights leave a model's function as it is? Another order of units, another basis of the residual
stream, and scales that cancel.
"""

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms.derivation import Derived, Drafts, permuted, rotated, scaled
from glasshouse.organisms.llama_layers import read_ends, read_layers
from glasshouse.values.deltas import Patch

WIDEST = 4.0
"""`Rescaled` draws factors between the inverse of this and this."""


@dataclass(frozen=True)
class Permuted(Derived):
    """Units in another order, in every layer: neurons, groups of heads, and heads within their group."""

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
    """The language tower's residual stream in another, random orthogonal basis.

    Norm gains are first folded into the layers that read them and become 1, because a norm without gain commutes with
    a rotation. Then everything that writes to the stream (embeddings, projector, o_proj, down_proj) and everything that
    reads it (q, k, v, gate, up, lm_head) is rotated.
    """

    preserves: ClassVar[bool] = True
    seed: int

    def patch_for(self, subject: Subject) -> Patch:
        drafts, layers, ends = Drafts(subject), read_layers(subject), read_ends(subject)
        rotation = rotated(subject.anatomy.tower("language").width, self.seed)
        for layer in layers:
            drafts.fold(layer.attention_norm, layer.query, layer.key, layer.value)
            drafts.fold(layer.mlp_norm, layer.gate, layer.up)
            for reader in (layer.query, layer.key, layer.value, layer.gate, layer.up):
                drafts.inputs(reader, rotation)
            drafts.outputs(layer.output, rotation)
            drafts.outputs(layer.down, rotation)
        drafts.fold(ends.final_norm, ends.unembedding)
        drafts.inputs(ends.unembedding, rotation)
        drafts.inputs(ends.embedding, rotation)  # a token's row is its output: rotated from the right, like an input
        if ends.projection is not None:
            drafts.outputs(ends.projection, rotation)
        return drafts.patch()


@dataclass(frozen=True)
class Rescaled(Derived):
    """Outputs scaled and inputs scaled back: up_proj and down_proj by neuron, v_proj and o_proj by group."""

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
