"""What was changed in the projector between a base and a model made of it? The weights of its linear layers, read in
float32, and what of the change rounding alone explains."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.model.anatomy import Projector
from glasshouse.model.finder import unwrapped
from glasshouse.model.subject import Subject
from glasshouse.numerics.spectra import rounding_floor
from glasshouse.values.errors import BadInput


@dataclass(frozen=True)
class Changed:
    """One weight matrix of the projector, before and after."""

    name: str
    """As `named_parameters` calls it."""
    base: Float[Tensor, "out inner"]
    after: Float[Tensor, "out inner"]

    @cached_property
    def delta(self) -> Float[Tensor, "out inner"]:
        """The change itself."""
        return self.after - self.base

    @cached_property
    def floor(self) -> float:
        """The largest singular value that rounding alone may give the change."""
        return max(rounding_floor(self.base), rounding_floor(self.after))

    @property
    def layer(self) -> str:
        """Its short name."""
        return self.name.removesuffix(".weight").rpartition(".")[2]


def changed(subject: Subject, base: Subject) -> tuple[Changed, ...]:
    """The projector's matrices in order of use. Refuses models that are not made of one another."""
    return tuple(Changed(name, before, after) for name, before, after in _pairs(subject, base, "weight"))


def matrices(subject: Subject) -> dict[str, Float[Tensor, "out inner"]]:
    """The projector's matrices as they are, by name in order of use, in float32 on the CPU."""
    known = dict(unwrapped(subject.model).named_parameters())
    return {f"{path}.weight": _plain(subject, f"{path}.weight", known) for path in linears(subject)}


def changed_biases(subject: Subject, base: Subject) -> dict[str, Float[Tensor, " out"]]:
    """What was added to each bias."""
    return {name: after - before for name, before, after in _pairs(subject, base, "bias")}


def changed_elsewhere(subject: Subject, base: Subject) -> tuple[str, ...]:
    """Parts of the model beside the projector whose weights differ from the base's."""
    own = linears(subject)
    before = dict(unwrapped(base.model).named_parameters())
    moved: set[str] = set()
    for name, weight in unwrapped(subject.model).named_parameters():
        if name.rpartition(".")[0] in own or (name in before and _same(weight, before[name])):
            continue
        moved.add(_part(subject, name))
    return tuple(sorted(moved))


def _plain(subject: Subject, name: str, known: Mapping[str, Tensor]) -> Float[Tensor, "..."]:
    """A weight that can be read. Refuses whatever is none."""
    if name not in known:
        path, _, end = name.rpartition(".")
        why = f"holds no plain {end} (quantised?); open it unquantised"
        if f"{path}.base_layer.{end}" in known:
            why = "has an adapter on it; merge it into the model first (merge_and_unload) and open that"
        raise BadInput(f"{subject.name}: {path} {why}")
    weight = known[name].detach()
    if weight.is_meta or not weight.is_floating_point():
        raise BadInput(
            f"{subject.name}: {name} is quantised or offloaded; open the model whole, in float32, bfloat16 or float16"
        )
    return weight.cpu().float()


def _same(one: Tensor, other: Tensor) -> bool:
    if one.is_meta or other.is_meta:
        raise BadInput("weights are offloaded, so that they cannot be compared; open both models whole")
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other.to(one.device))


def _part(subject: Subject, name: str) -> str:
    for part in ("vision", "language"):
        tower = getattr(subject.anatomy, part)
        if tower is not None and any(name.startswith(f"{block.path}.") for block in tower.layers):
            return part
    return "projector" if any(name.startswith(f"{path}.") for path in _projector(subject).paths) else "elsewhere"


def linears(subject: Subject) -> tuple[str, ...]:
    """The projector's linear layers in order of use."""
    return _projector(subject).linears


def _projector(subject: Subject) -> Projector:
    projector = subject.anatomy.projector
    if projector is None or not projector.linears:
        raise BadInput(
            f"{subject.name}: no projector with linear layers was found ({subject.anatomy.family}); this question is "
            "about what connects a vision tower to a language model"
        )
    return projector


def _pairs(subject: Subject, base: Subject, kind: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    after, before = (dict(unwrapped(one.model).named_parameters()) for one in (subject, base))
    if linears(subject) != linears(base):
        raise BadInput(
            f"{base.name} ({base.anatomy.family}) is no base of {subject.name} ({subject.anatomy.family}): their "
            "projectors are built otherwise; give the model that this one was tuned from"
        )
    for path in linears(subject):
        name = f"{path}.{kind}"
        if kind == "bias" and name not in after and name not in before:
            continue
        one, other = _plain(base, name, before), _plain(subject, name, after)
        if one.shape != other.shape:
            raise BadInput(
                f"{name}: {tuple(other.shape)} in {subject.name}, {tuple(one.shape)} in {base.name}; "
                "give the model that this one was tuned from"
            )
        yield name, one, other
