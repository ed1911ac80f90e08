"""How is a relative derived from a model that stays unchanged? By drafts of its weights, a patch, and a proved copy.

    drafts = Drafts(subject)                      # copies in double precision, made on first access
    for layer in read_layers(subject):
        drafts.outputs(layer.up, scaled(c))       # what a linear layer writes: rows of its weight, and its bias
        drafts.inputs(layer.down, scaled(1 / c))  # what it reads: columns of its weight
    opened(patched_copy(subject, drafts.patch()), subject, name)

Drafts hold the changed weights in double precision in the CPU's memory: this is for organisms, not for billions of
weights.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from glasshouse.data.examples import Example
from glasshouse.data.images import StoredImage
from glasshouse.model.finder import unwrapped
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.values.deltas import Patch, Whole
from glasshouse.values.errors import BadInput

Change = Callable[[Tensor], Tensor]
"""A new tensor from an old one, along its first axis, which fits the rows of a weight and a bias alike."""

SAME = 1e-4
"""Logits that differ by less than this fraction of the largest differ only by rounding in float32."""


class Drafts:
    """Copies of the weights of a subject, which stays unchanged; the edited copies become a patch."""

    def __init__(self, subject: Subject) -> None:
        self._parameters = dict(unwrapped(subject.model).named_parameters(remove_duplicate=False))
        self._written: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        """The current draft of a weight; do not write to it in place."""
        if name in self._written:
            return self._written[name]
        return self._parameters[name].detach().to("cpu", torch.float64, copy=True)

    def __setitem__(self, name: str, values: Tensor) -> None:
        self._written[name] = values

    def outputs(self, linear: str, change: Change) -> None:
        """Change the outputs of a linear layer: rows of its weight, and its bias."""
        for name in (f"{linear}.weight", f"{linear}.bias"):
            if name in self._parameters:
                self[name] = change(self[name])

    def inputs(self, linear: str, change: Change) -> None:
        """Change the inputs of a linear layer; or the outputs of an embedding, which are the same axis."""
        self[f"{linear}.weight"] = change(self[f"{linear}.weight"].T).T

    def fold(self, norm: str, *readers: str) -> None:
        """Move a norm's gain into the layers that read it; the gain becomes 1. A norm without a gain stays as it is."""
        if f"{norm}.weight" not in self._parameters:
            return
        gain = self[f"{norm}.weight"]
        for reader in readers:
            self.inputs(reader, scaled(gain))
        self[f"{norm}.weight"] = torch.ones_like(gain)

    def shapes(self, names: Mapping[str, str]) -> set[tuple[str, tuple[int, ...]]]:
        """The shape of each of these weights, with its key."""
        return {(key, tuple(self._parameters[name].shape)) for key, name in names.items()}

    def patch(self) -> Patch:
        """The edited weights, in their own dtype."""
        return Patch(
            {name: Whole(new.to(self._parameters[name].dtype).contiguous()) for name, new in self._written.items()}
        )


def permuted(order: Int[Tensor, " units"]) -> Change:
    """Units in another order. Each unit has an equal number of adjacent entries of the axis."""
    return lambda rows: rows.unflatten(0, (len(order), -1))[order].flatten(0, 1)


def scaled(factors: Float[Tensor, " units"]) -> Change:
    """Each unit multiplied by its factor."""
    return lambda rows: torch.einsum("u,u...->u...", factors, rows.unflatten(0, (len(factors), -1))).flatten(0, 1)


def rotated(width: int, seed: int) -> Change:
    """The whole axis rotated by a Haar-random orthogonal matrix."""
    basis, triangle = torch.linalg.qr(torch.randn(width, width, generator=seeded(seed), dtype=torch.float64))
    rotation = basis * triangle.diagonal().sign()  # without the signs the distribution would depend on the QR algorithm
    return lambda rows: rotation @ rows


def sizes(rows: Tensor, units: int) -> Float[Tensor, " units"]:
    """The norm of each unit's rows of a matrix."""
    return rows.unflatten(0, (units, -1)).flatten(1).norm(dim=1)


def without_least(importance: Float[Tensor, " units"], dropped: int) -> Float[Tensor, " units"]:
    """A factor for each unit: 0 for the least important, 1 for the others."""
    return torch.ones_like(importance).index_fill(0, importance.argsort(stable=True)[:dropped], 0)


def patched_copy(subject: Subject, patch: Patch | None = None) -> PreTrainedModel:
    """A copy of the model with the patch applied. It is copied while patched, which checks the patch."""
    with subject.alone:
        if subject.changes:
            raise BadInput(
                f"{subject.name}: a plan or a patch is active; leave its `with` block before deriving a relative"
            )
        with patched(subject, patch or Patch({})):
            return copy.deepcopy(subject.model)


def reinitialised(subject: Subject, seed: int) -> PreTrainedModel:
    """A model of the same architecture, initialised as transformers does it."""
    base = unwrapped(subject.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers initialises from the global state, which fork_rng restores
        model = type(base)(copy.deepcopy(base.config))
    model.generation_config = copy.deepcopy(base.generation_config)
    return model.to(device=base.device, dtype=base.dtype)  # pyright: ignore[reportCallIssue]


def opened(model: PreTrainedModel, subject: Subject, name: str) -> Subject:
    """The model as a subject of its own, with the processor of the given one, proved."""
    relative = open_subject(model, processor=subject.prompts.original, unproved=True)
    relative.name = name
    if relative.certificate is not None and relative.certificate.failures:
        failures = "; ".join(relative.certificate.failures)
        raise BadInput(f"{name}: this relative of {subject.name} cannot be proved ({failures}); change it less")
    return relative


@torch.no_grad()
def check_same(subject: Subject, relative: Subject) -> None:
    """Refuse a relative whose logits on one image and question should equal the subject's and do not."""
    if subject.processor is None:
        return  # opened without a processor, so there is no input to compare on
    slope, rings = Image.linear_gradient("L"), Image.radial_gradient("L")
    picture = Image.merge("RGB", (slope, rings, slope.rotate(90))).resize((64, 64))
    images = (StoredImage.png(picture),) if subject.anatomy.vision is not None else ()
    encoded = subject.encode([Example("what is in this picture ?", images, id="synthetic")])
    before, after = subject.logits(encoded), relative.logits(encoded)
    apart = float((after - before).abs().max() / before.abs().max())
    if not apart <= SAME:
        hint = (
            ""
            if subject.model.dtype == torch.float32
            else ", or the dtype of their weights is too coarse; open it in float32"
        )
        raise BadInput(
            f"{relative.name}: its logits differ from those of {subject.name} by {apart:.1g} of the largest, so the "
            f"layers are not quite of the Llama type{hint}"
        )


@dataclass(frozen=True)
class Relation:
    """How one model is derived from another."""

    preserves: ClassVar[bool] = False
    """Whether the relative has the same logits as the model it comes from."""

    @classmethod
    def label(cls) -> str:
        """The relation's name: fine-tuned, pruned, ..."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    def __str__(self) -> str:
        return f"{self.label()}({','.join(json.dumps(getattr(self, field.name)) for field in fields(self))})"


def require(condition: bool, relation: Relation, problem: str) -> None:
    if not condition:
        raise BadInput(f"{relation}: {problem}")


@dataclass(frozen=True)
class Derived(Relation):
    """A relative derived from one model by a patch of its weights."""

    def patch_for(self, subject: Subject) -> Patch:
        """The patch from this subject to its relative."""
        raise NotImplementedError

    def of(self, subject: Subject) -> Subject:
        """The relative, opened and proved."""
        relative = opened(patched_copy(subject, self.patch_for(subject)), subject, f"{subject.name}~{self}")
        if self.preserves:
            check_same(subject, relative)
        return relative
