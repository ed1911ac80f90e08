"""How does a token's shift depend on its norm, and how would it under updates that carry no backdoor?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.engine.units import mapped
from glasshouse.methods.backdoor._token_shift import TokenShift
from glasshouse.model.patches import patched
from glasshouse.model.projector_differences import projector_differences
from glasshouse.model.subject import Subject
from glasshouse.model.token_activations import mean_by_example, token_activations
from glasshouse.numerics.correlation import Line, line
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import rotated, singular_values
from glasshouse.numerics.statistics import auroc
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.findings import Interval, NoPicture
from glasshouse.values.sites import projector

RESAMPLES = 200
"""Of each bootstrap: every resample computes a statistic of thousands of tokens."""
NormAndShift = Float[Tensor, "tokens 2"]


@dataclass(frozen=True)
class NormRegression:
    """Shift against norm, under one update."""

    correlation: Annotated[Interval, NoPicture]
    """Pearson correlation of shift and norm."""
    rank_correlation: Annotated[Interval, NoPicture]
    """Spearman correlation of shift and norm."""
    slope: Annotated[Interval, NoPicture]
    """Slope of the regression of shift on norm."""
    exponent: Annotated[Interval, NoPicture]
    """Slope of the logarithms; 1 where the shift is proportional to the norm."""
    lower_half: float
    """Correlation among the tokens of lower norm alone."""
    upper_half: float
    """Correlation among the tokens of higher norm alone."""

    @classmethod
    def of(cls, points: NormAndShift, owners: Int[Tensor, " tokens"], seed: int) -> "NormRegression":
        """From norm and shift of each token."""

        def interval(statistic: Callable[[Line], float]) -> Interval:
            return _bootstrap(lambda sample: statistic(line(sample)), points, owners, seed)

        norms, median = points[:, 0], points[:, 0].median()
        halves = [line(points[half]).correlation for half in (norms <= median, norms > median)]
        return cls(
            interval(lambda fit: fit.correlation), interval(lambda fit: fit.by_rank),
            interval(lambda fit: fit.slope), interval(lambda fit: fit.exponent), *halves,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Points:
    """Norm and shift of each token under one update."""

    values: NormAndShift


def null_points(
    subject: Subject, base: Subject, benign: Subject | None, examples: Examples, seeds: Sequence[int], batch_size: int
) -> dict[str, tuple[NormAndShift, ...]]:
    """Norm and shift of the same tokens under random updates of the base, and under a benign one."""
    handles = {
        "base": base, "suspect": {layer.name: layer.delta for layer in projector_differences(subject, base)},
        "examples": examples, "batch_size": batch_size,
        "tokens": token_activations(base, projector.output, examples, batch_size),
    }  # fmt: skip
    draws = [(kind, seed) for kind in RANDOM_UPDATES for seed in seeds]
    drawn = zip(draws, mapped(_points_under, draws, Points, handles=handles, name="null"), strict=True)
    points: dict[str, tuple[NormAndShift, ...]] = dict.fromkeys(RANDOM_UPDATES, ())
    for (kind, _), under in drawn:
        points[kind] += (under.values,)
    if benign is not None:
        points["benign update"] = (TokenShift.of(benign, base, examples, batch_size).norm_and_shift,)
    return points


@torch.no_grad()
def _points_under(
    draw: tuple[str, int], base: Subject, suspect: Mapping[str, Tensor], examples: Examples, batch_size: int,
    tokens: tuple[Tensor, Tensor],
) -> Points:  # fmt: skip
    """Under one random update of the base: its kind and its seed. `tokens` are the base's own, with their owners."""
    kind, seed = draw
    update, (before, owners) = RANDOM_UPDATES[kind], tokens
    with patched(base, Patch({name: Dense(update(delta, seed)) for name, delta in suspect.items()})):
        after, _ = token_activations(base, projector.output, examples, batch_size)
    return Points(TokenShift(before, after, owners).norm_and_shift)


def _haar(delta: Tensor, seed: int) -> Tensor:
    out, inner = delta.shape
    return rotated(singular_values(delta), out, inner, seed)


def gaussian_update(delta: Tensor, seed: int) -> Tensor:
    """A Gaussian matrix with the norm of this update of a layer."""
    drawn = torch.randn(delta.shape, generator=seeded(seed))
    return drawn * float(delta.norm() / drawn.norm())


RANDOM_UPDATES = {"same singular values, random directions": _haar, "Gaussian, same norm": gaussian_update}
"""By name, an update that carries no backdoor and resembles the suspect's in a layer."""


def excess_correlation(suspect: TokenShift, null: Sequence[NormAndShift], seed: int) -> Interval:
    """The suspect's correlation, less the mean of a null's, on the same resampled images."""

    def excess(sample: Tensor) -> float:
        own, *others = (line(points).correlation for points in sample.split(2, dim=1))
        return own - sum(others) / len(others)

    return _bootstrap(excess, torch.cat([suspect.norm_and_shift, *null], 1), suspect.owners, seed)


def slope_difference(clean: TokenShift, triggered: TokenShift, seed: int) -> Interval:
    """Slope on triggered images less that on clean ones, along the clean images' main direction. Images are resampled
    together with their twins."""
    along = torch.stack([triggered.before.norm(dim=1), triggered.moved @ clean.main[:, 0]], 1)
    both = torch.cat([clean.norm_and_shift, along], 1)
    return _bootstrap(lambda sample: line(sample[:, 2:]).slope - line(sample[:, :2]).slope, both, clean.owners, seed)


def residual_auroc(shifts: Mapping[str, TokenShift]) -> float:
    """How well an image's mean residual from the clean images' regression separates triggered from clean: AUROC."""
    clean = shifts["clean"]
    fit, residuals = line(clean.norm_and_shift), list[Tensor]()
    for shift in shifts.values():
        residual = shift.moved @ clean.main[:, 0] - fit.slope * shift.before.norm(dim=1) - fit.intercept
        residuals.append(mean_by_example(residual[:, None], shift.owners)[:, 0])
    positive = torch.cat([torch.zeros(len(residuals[0])), torch.ones(len(residuals[1]))]).bool()
    return auroc(torch.cat(residuals), positive)


def _bootstrap(statistic: Callable[[Tensor], float], rows: Tensor, owners: Tensor, seed: int) -> Interval:
    """Whole images are resampled, because tokens of one image are not independent."""
    return Interval.bootstrap(
        lambda sample: torch.tensor(statistic(sample)), rows, seed=seed, groups=owners, draws=RESAMPLES
    )
