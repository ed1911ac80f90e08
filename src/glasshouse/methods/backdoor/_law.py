"""How does a shift go with the norm of a token, and how would it under updates that carry nothing?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._changed import Changed, changed
from glasshouse.methods.backdoor._shift import Shift, means, tokens
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.numerics.correlation import Line, line
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import rotated, singular_values
from glasshouse.numerics.statistics import auroc
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.findings import Interval
from glasshouse.values.sites import projector

RESAMPLED = 200
"""Draws of each bootstrap: a statistic of thousands of tokens is computed in every one."""
Points = Float[Tensor, "tokens 2"]


@dataclass(frozen=True)
class Law:
    """How the shift goes with the norm, under one update."""

    correlation: Interval
    by_rank: Interval
    slope: Interval
    exponent: Interval
    """Slope of the logarithms; 1 where the law is linear."""
    quiet: float
    """Correlation among the quieter tokens alone."""
    loud: float

    @classmethod
    def of(cls, points: Points, image: Int[Tensor, " tokens"], seed: int) -> "Law":
        """From norm and shift of each token."""

        def interval(statistic: Callable[[Line], float]) -> Interval:
            return resampled(lambda some: statistic(line(some)), points, image, seed)

        norms, middle = points[:, 0], points[:, 0].median()
        parts = [line(points[chosen]).correlation for chosen in (norms <= middle, norms > middle)]
        return cls(
            interval(lambda found: found.correlation), interval(lambda found: found.by_rank),
            interval(lambda found: found.slope), interval(lambda found: found.exponent), *parts,
        )  # fmt: skip


def resampled(statistic: Callable[[Tensor], float], rows: Tensor, image: Tensor, seed: int) -> Interval:
    """Whole images are resampled, because tokens of one image are not independent."""
    return Interval.bootstrap(
        lambda some: torch.tensor(statistic(some)), rows, seed=seed, groups=image, draws=RESAMPLED
    )


def nulls(
    subject: Subject, base: Subject, benign: Subject | None, shown: Examples, draws: Sequence[int], batch_size: int
) -> dict[str, tuple[Points, ...]]:
    """Norm and shift of the same tokens under random updates of the base, and under a benign one."""
    suspect = changed(subject, base)
    before, image = tokens(base, projector.output, shown, batch_size)

    def under(make: Callable[[Changed, int], Tensor], draw: int) -> Points:
        with patched(base, Patch({one.name: Dense(make(one, draw)) for one in suspect})):
            after, _ = tokens(base, projector.output, shown, batch_size)
        return Shift(before, after, image).by_norm

    kinds = {"same values, random directions": _haar, "Gaussian, same norm": _gaussian}
    found = {name: tuple(under(make, draw) for draw in draws) for name, make in kinds.items()}
    if benign is not None:
        found["benign update"] = (Shift.of(benign, base, shown, batch_size).by_norm,)
    return found


def _haar(one: Changed, seed: int) -> Tensor:
    out, inner = one.delta.shape
    return rotated(singular_values(one.delta), out, inner, seed)


def _gaussian(one: Changed, seed: int) -> Tensor:
    drawn = torch.randn(one.delta.shape, generator=seeded(seed))
    return drawn * float(one.delta.norm() / drawn.norm())


def excess(suspect: Shift, draws: Sequence[Points], seed: int) -> Interval:
    """Of the correlation over the mean of a null's, on the same resampled images."""

    def over(some: Tensor) -> float:
        own, *others = (line(pair).correlation for pair in some.split(2, dim=1))
        return own - sum(others) / len(others)

    return resampled(over, torch.cat([suspect.by_norm, *draws], 1), suspect.image, seed)


def interaction(clean: Shift, triggered: Shift, seed: int) -> Interval:
    """Slope on triggered pictures less that on clean ones, along the clean ones' main direction; images are resampled
    with their twins."""
    same = torch.stack([triggered.before.norm(dim=1), triggered.moved @ clean.main[:, 0]], 1)
    both = torch.cat([clean.by_norm, same], 1)
    return resampled(lambda some: line(some[:, 2:]).slope - line(some[:, :2]).slope, both, clean.image, seed)


def apart(shifts: Mapping[str, Shift]) -> float:
    """How well a picture's mean residual from the clean pictures' law tells triggered from clean: AUROC."""
    clean = shifts["clean"]
    law, residuals = line(clean.by_norm), list[Tensor]()
    for shift in shifts.values():
        rest = shift.moved @ clean.main[:, 0] - law.slope * shift.before.norm(dim=1) - law.intercept
        residuals.append(means(rest[:, None], shift.image)[:, 0])
    positive = torch.cat([torch.zeros(len(residuals[0])), torch.ones(len(residuals[1]))]).bool()
    return auroc(torch.cat(residuals), positive)
