"""What is done to a model's activations, as data: a `Plan` of edits at sites.

    Plan({language.heads[12, 3]: Scale(0.0), projector.output: Add(direction, scale=2.0)})

An edit is a pure function of the values at a site. It sees them packed: one row per selected token, so spans, padding
and single rows of a batch are no concern of its own. `model/taps.py` carries plans out; nothing here touches a model.
Everything but `Mask` is frozen and compared by content; `Mask` holds a parameter, and is frozen into a `Scale` when
training ends.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.numerics.randomness import seeded
from glasshouse.values.codec import ByContent, digest
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site
from glasshouse.values.token_text import as_tokens
from glasshouse.values.tokens import ALL, Tokens


@dataclass(frozen=True, eq=False)
class Edit(ByContent):
    """One change of the values at a site. `units` is the axis of heads or neurons (or of features in a residual)."""

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        """The new values. `rows` says which row of the batch each token belongs to."""
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        """True when this edit changes nothing, so that logits stay identical to the last bit."""
        return False


@dataclass(frozen=True, eq=False)
class Zero(Edit):
    """Nothing is left."""

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        return torch.zeros_like(values)


@dataclass(frozen=True, eq=False)
class Scale(Edit):
    """Times a number, or a number per unit."""

    factor: float | Float[Tensor, " units"]

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        return values * _along(self.factor, values, units)

    @property
    def idle(self) -> bool:
        return isinstance(self.factor, float | int) and self.factor == 1


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Plus a vector, `scale` times: steering."""

    vector: Float[Tensor, " features"]
    scale: float = 1.0

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        return values + self.scale * _like(self.vector, values)

    @property
    def idle(self) -> bool:
        return self.scale == 0


@dataclass(frozen=True, eq=False)
class Project(Edit):
    """Remove the part within the span of `directions`, or keep only that part. `strength` 0 changes nothing."""

    directions: Float[Tensor, "directions features"]
    keep: bool = False
    strength: float = 1.0

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        basis = _basis(self.directions.to(values.device, torch.float32))
        inside = (values.float() @ basis @ basis.T).to(values.dtype)
        return values - self.strength * (values - inside if self.keep else inside)

    @property
    def idle(self) -> bool:
        return self.strength == 0


@dataclass(frozen=True, eq=False)
class Clamp(Edit):
    """Never below `low`, never above `high`."""

    low: float | None = None
    high: float | None = None

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        return values.clamp(self.low, self.high)

    @property
    def idle(self) -> bool:
        return self.low is None and self.high is None


@dataclass(frozen=True, eq=False)
class Replace(Edit):
    """Something else instead: a number, a vector for every token, or a row per selected token (activation patching)."""

    values: float | Float[Tensor, "..."]

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        new = self.values if isinstance(self.values, Tensor) else torch.tensor(self.values)
        try:
            return _like(new, values).expand_as(values)
        except RuntimeError:
            raise BadInput(
                f"Replace: the site selects values of {tuple(values.shape)}, the replacement is {tuple(new.shape)}"
            ) from None


@dataclass(frozen=True, eq=False)
class Mean(Edit):
    """Each selected token becomes the mean of its row's selected tokens: what they share stays, the rest is lost."""

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        wide = values.to(torch.promote_types(values.dtype, torch.float32))  # bfloat16 cannot even count to 257
        counts = torch.bincount(rows).clamp_min(1)
        sums = wide.new_zeros(len(counts), *values.shape[1:]).index_add(0, rows, wide)
        return (sums / counts.reshape(-1, *[1] * (values.ndim - 1)))[rows].to(values.dtype)


@dataclass(frozen=True, eq=False)
class Noise(Edit):
    """Plus Gaussian noise of a named seed. Every forward pass draws on; entering `edited` again starts afresh."""

    deviation: float
    seed: int = 0

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        raise AssertionError("taps draws the noise through `drawing`, which keeps the generator")

    def drawing(self) -> "_Drawing":
        """A live copy with its own generator."""
        return _Drawing(self)

    @property
    def idle(self) -> bool:
        return self.deviation == 0


class _Drawing:
    def __init__(self, noise: Noise) -> None:
        self.noise, self.generator = noise, seeded(noise.seed)

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        drawn = torch.randn(values.shape, generator=self.generator)
        return values + self.noise.deviation * _like(drawn, values)


@dataclass(frozen=True, eq=False)
class AttentionPattern(Edit):
    """Attention of the span's queries over `keys` is replaced; only for `pattern` sites.

    `uniform` spreads it evenly over the keys a query may see, `cut` takes the keys away before the softmax, and a
    tensor gives one weight per selected key, the same for every query. `preserve` leaves the keys the total mass they
    had, so only *where* inside them is replaced; without it the replaced weights sum to their share of all keys.
    `strength` mixes new and old.
    """

    source: Literal["uniform", "cut"] | Float[Tensor, " keys"] = "uniform"
    keys: Tokens = ALL
    strength: float = 1.0
    preserve: bool = True

    def __init__(
        self,
        source: Literal["uniform", "cut"] | Float[Tensor, " keys"] = "uniform",
        keys: Tokens | str = ALL,
        strength: float = 1.0,
        preserve: bool = True,
    ) -> None:
        if not isinstance(source, Tensor) and source not in ("uniform", "cut"):
            raise BadInput(f"AttentionPattern: source {source!r}; give 'uniform', 'cut' or a tensor of weights")
        values = {"source": source, "keys": as_tokens(keys), "strength": strength, "preserve": preserve}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def idle(self) -> bool:
        return self.strength == 0


@dataclass(frozen=True, eq=False)
class Mask(Edit):
    """The one live edit: times a parameter per unit, or per row and unit, so several arms share one forward pass."""

    values: Float[Tensor, "*rows units"]

    @classmethod
    def ones(cls, units: int, rows: int | None = None, device: torch.device | str = "cpu") -> Self:
        """A mask that changes nothing yet and can be trained."""
        shape = (units,) if rows is None else (rows, units)
        return cls(torch.ones(shape, device=device, requires_grad=True))

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        if self.values.ndim == 1:
            return values * _along(self.values, values, units)
        per_token = _like(self.values, values)[rows]
        return values * per_token.reshape(*per_token.shape, *[1] * (-1 - units))

    def frozen(self) -> Scale:
        """What it has become, as a value."""
        if self.values.ndim != 1:
            raise BadInput("a mask per row cannot be frozen into one Scale; freeze each row's values on their own")
        return Scale(self.values.detach().clone())

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True)
class Step:
    """One edit at one site, for all rows of a batch or for some."""

    site: Site
    edit: Edit
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and (not self.rows or min(self.rows) < 0):
            raise BadInput(f"{self.site}: rows {list(self.rows)}; name at least one row of the batch, counted from 0")


@dataclass(frozen=True)
class Plan:
    """Edits at sites, in order: where two meet, the later sees what the earlier left."""

    steps: tuple[Step, ...]

    def __init__(self, steps: Mapping[Site, Edit] | Iterable[Step]) -> None:
        if isinstance(steps, Mapping):
            edits = cast(Mapping[Site, Edit], steps)
            steps = [Step(site, edit) for site, edit in edits.items()]
        steps = tuple(steps)
        for step in steps:
            if not isinstance(step.site, Site) or not isinstance(step.edit, Edit):  # pyright: ignore[reportUnnecessaryIsInstance]
                kind = type(step.edit).__name__
                raise BadInput(f"Plan: {step.site}: {kind}; give Plan({{site: edit}}), a Site and an Edit")
            if isinstance(step.edit, AttentionPattern) != (step.site.kind == "pattern"):
                raise BadInput(f"{step.site}: AttentionPattern goes with pattern sites, and only it does")
        object.__setattr__(self, "steps", steps)

    def __or__(self, later: "Plan") -> "Plan":
        return Plan((*self.steps, *later.steps))

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def for_rows(self, *rows: int) -> "Plan":
        """The same edits, for these rows of every batch only."""
        return Plan(replace(step, rows=rows) for step in self.steps)

    @staticmethod
    def arms(plans: Iterable["Plan"]) -> "Plan":
        """Row r of the batch gets plan r: several arms of an experiment in one forward pass."""
        return Plan(step for row, plan in enumerate(plans) for step in plan.for_rows(row))

    def digest(self) -> str:
        """Names the content: equal plans, equal digest."""
        return digest(self)


def _basis(directions: Tensor) -> Tensor:
    """Orthonormal columns with the span of the rows. Dependent rows bring none, so nothing else is removed."""
    unit = torch.nn.functional.normalize(directions, dim=1, eps=torch.finfo(directions.dtype).tiny)
    basis, sizes, _ = cast(
        tuple[Tensor, Tensor, Tensor],
        torch.linalg.svd(unit.T, full_matrices=False),  # pyright: ignore[reportUnknownMemberType] - torch has no type
    )
    return basis[:, sizes > max(unit.shape) * torch.finfo(unit.dtype).eps]


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return tensor.to(values.device, values.dtype)


def _along(factor: float | Tensor, values: Tensor, units: int) -> float | Tensor:
    """Shape a number per unit so that it meets its axis."""
    if not isinstance(factor, Tensor) or factor.ndim == 0:
        return factor if not isinstance(factor, Tensor) else _like(factor, values)
    if factor.shape[0] not in (1, values.shape[units]):
        raise BadInput(f"{factor.shape[0]} factors for {values.shape[units]} units")
    return _like(factor, values).reshape(-1, *[1] * (-1 - units))
