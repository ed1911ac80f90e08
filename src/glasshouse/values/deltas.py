"""How are changes of a model's weights described as data? By a `Patch` of deltas by weight name.

    Patch({"model.multi_modal_projector.linear_2.weight": LowRank(left, right)})

Every delta is added to a weight, except `Whole`, which replaces it bit for bit, and `Rounded`, which quantises it.
`model/patches.py` applies them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.values.codec import ByContent, digest
from glasshouse.values.errors import BadInput


@dataclass(frozen=True, eq=False)
class Delta(ByContent):
    """The change of one weight matrix: added to it, or in its place."""

    def onto(self, weight: Tensor) -> Tensor:
        """The new weight, computed in float32 and rounded once. The old weight stays as it is."""
        raise NotImplementedError

    def check(self, name: str, weight: Tensor) -> None:
        """Refuse a delta that does not fit, before any weight is changed."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
                raise BadInput(f"patch of {name}: {field.name} holds NaN or infinity; a patch must be finite")
        try:
            shape = self.shape_on(weight)
        except (IndexError, ValueError, RuntimeError) as problem:
            raise BadInput(f"patch of {name}: does not fit a weight of {tuple(weight.shape)}: {problem}") from None
        if shape != tuple(weight.shape):
            raise BadInput(f"patch of {name}: is for shape {shape}, the weight has {tuple(weight.shape)}")

    def shape_on(self, weight: Tensor) -> tuple[int, ...]:
        raise NotImplementedError

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same delta with its values changed, as to another precision."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{
            name: change(value) if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in values.items()
        })  # fmt: skip


@dataclass(frozen=True, eq=False)
class Dense(Delta):
    """Plus a matrix."""

    values: Float[Tensor, "..."]

    def onto(self, weight: Tensor) -> Tensor:
        return (weight.float() + self.values.to(weight.device).float()).to(weight.dtype)

    def shape_on(self, weight: Tensor) -> tuple[int, ...]:
        return tuple(self.values.shape)


@dataclass(frozen=True, eq=False)
class Whole(Delta):
    """Another matrix in its place, to the bit."""

    values: Float[Tensor, "..."]

    def onto(self, weight: Tensor) -> Tensor:
        return self.values.to(weight.device, weight.dtype, copy=True)

    def shape_on(self, weight: Tensor) -> tuple[int, ...]:
        return tuple(self.values.shape)


@dataclass(frozen=True, eq=False)
class LowRank(Delta):
    """Plus left @ right."""

    left: Float[Tensor, "out rank"]
    right: Float[Tensor, "rank in"]

    def onto(self, weight: Tensor) -> Tensor:
        left, right = self.left.to(weight.device).float(), self.right.to(weight.device).float()
        return torch.addmm(weight.float(), left, right).to(weight.dtype)

    def shape_on(self, weight: Tensor) -> tuple[int, ...]:
        if self.left.shape[1] != self.right.shape[0]:
            raise ValueError(f"ranks {self.left.shape[1]} and {self.right.shape[0]} differ")
        return (self.left.shape[0], self.right.shape[1])


@dataclass(frozen=True, eq=False)
class Sparse(Delta):
    """Plus numbers at some places, counted along the flattened weight."""

    places: Int[Tensor, " places"]
    values: Float[Tensor, " places"]

    def onto(self, weight: Tensor) -> Tensor:
        flat, places = weight.float().flatten(), self.places.to(weight.device)
        return flat.index_add(0, places, self.values.to(weight.device).float()).view_as(weight).to(weight.dtype)

    def shape_on(self, weight: Tensor) -> tuple[int, ...]:
        return _fits(self.places, self.values.shape[0], weight.numel(), "places") or tuple(weight.shape)


@dataclass(frozen=True, eq=False)
class Rows(Delta):
    """Plus whole rows (axis 0, what a unit reads) or columns (axis 1, what a unit writes)."""

    places: Int[Tensor, " places"]
    values: Float[Tensor, "places width"]
    axis: Literal[0, 1] = 0

    def onto(self, weight: Tensor) -> Tensor:
        values = self.values.to(weight.device).float()
        rows = weight.float().index_add(self.axis, self.places.to(weight.device), values.T if self.axis else values)
        return rows.to(weight.dtype)

    def shape_on(self, weight: Tensor) -> tuple[int, ...]:
        _fits(self.places, self.values.shape[0], weight.shape[self.axis], "rows")
        other = (self.values.shape[1],)
        return (*other, weight.shape[1]) if self.axis else (weight.shape[0], *other)


@dataclass(frozen=True, eq=False)
class Rounded(Delta):
    """The weight on a grid of 2^bits - 1 levels per row, symmetric about zero, as quantised checkpoints store it."""

    bits: int = 8

    def onto(self, weight: Tensor) -> Tensor:
        exact = weight.float()
        levels = 2 ** (self.bits - 1) - 1
        step = exact.abs().amax(tuple(range(1, exact.ndim)), keepdim=True).clamp_min(1e-30) / levels
        return ((exact / step).round() * step).to(weight.dtype)

    def shape_on(self, weight: Tensor) -> tuple[int, ...]:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"{self.bits} bits; from 2 to 16 can be asked for")
        return tuple(weight.shape)


@dataclass(frozen=True)
class Patch:
    """Deltas by weight name, as `model.named_parameters()` calls them."""

    deltas: Mapping[str, Delta]

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", dict(sorted(self.deltas.items())))

    def __hash__(self) -> int:
        return int(self.digest()[:15], 16)

    def digest(self) -> str:
        """Names the content: equal patches, equal digest."""
        return digest(self)

    @classmethod
    def low_rank(cls, name: str, left: Float[Tensor, "out rank"], right: Float[Tensor, "rank in"]) -> Self:
        return cls({name: LowRank(left, right)})

    @classmethod
    def dense(cls, name: str, values: Float[Tensor, "..."]) -> Self:
        return cls({name: Dense(values)})


def _fits(places: Tensor, values: int, count: int, what: str) -> None:
    if len(places) != values:
        raise ValueError(f"{len(places)} {what} but {values} values")
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < count:
        raise ValueError(f"{what} must lie in 0-{count - 1}")
