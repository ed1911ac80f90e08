"""How much has each hidden unit of the projector to do with a trigger? Four scores: recordings and one gradient."""

from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._rehearsed import Rehearsed
from glasshouse.methods.backdoor._shift import beside, tokens
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.numerics.statistics import auroc, holm
from glasshouse.values.changes import Mask, Plan
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector

NAMES = ("tells apart", "more than in the base", "trigger-activated change", "contribution")


@dataclass(frozen=True)
class Scored:
    """Every unit's scores."""

    values: Float[Tensor, "scores units"]
    """In the order of NAMES, signed."""
    significant: int
    """Units whose AUROC differs from chance after Holm's correction over all units and statistics."""
    activity: Float[Tensor, " units"]
    """Mean size on clean images."""


def scored(subject: Subject, base: Subject, clean: Examples, triggered: Examples, batch_size: int) -> Scored:
    """Clean and triggered examples are twins, in the same order."""
    quiet, loud, before, after = (
        tokens(one, projector.hidden, shown, batch_size)[0] for one in (subject, base) for shown in (clean, triggered)
    )
    beside(quiet, loud, before, after)
    if len(quiet) % len(clean):
        raise BadInput(f"{len(quiet)} image tokens for {len(clean)} examples: give images of one size")
    units, per = quiet.shape[1], len(quiet) // len(clean)
    by_image = [_statistics(x.view(len(clean), per, units)) for x in (quiet, loud)]
    apart, p = _aurocs(*by_image)
    furthest = (apart - 0.5).abs().max(0)
    tells = apart.gather(0, furthest.indices[None])[0] - 0.5
    more = (loud.mean(0) - quiet.mean(0)) - (after.mean(0) - before.mean(0))
    change = (loud - quiet).abs().mean(0)
    adjusted = holm(p.flatten()).view_as(p)
    gives = _contribution(subject, Rehearsed.of(subject, triggered, batch_size), units)
    return Scored(
        torch.stack([tells, more, change, gives]).float(),
        int((adjusted.min(0).values < 0.05).sum()), quiet.abs().mean(0),
    )  # fmt: skip


def _statistics(values: Float[Tensor, "images tokens units"]) -> Float[Tensor, "statistics images units"]:
    """Mean, 95th percentile and maximum over an image's tokens."""
    ordered = values.sort(1).values
    high = ordered[:, min(values.shape[1] - 1, round(0.95 * (values.shape[1] - 1)))]
    return torch.stack([values.mean(1), high, ordered[:, -1]])


def _aurocs(clean: Tensor, triggered: Tensor) -> tuple[Tensor, Tensor]:
    """By statistic and unit: AUROC of triggered against clean, and its two-sided p under no difference (normal)."""
    statistics, images, units = clean.shape
    positive = torch.cat([torch.zeros(images), torch.ones(images)]).bool()
    found = torch.tensor(
        [
            [auroc(torch.cat([clean[s, :, u], triggered[s, :, u]]), positive) for u in range(units)]
            for s in range(statistics)
        ]
    )
    spread = ((2 * images + 1) / (12 * images * images)) ** 0.5
    normal = NormalDist()
    p = [[2 * (1 - normal.cdf(abs(one - 0.5) / spread)) for one in row] for row in found.tolist()]
    return found, torch.tensor(p)


def _contribution(subject: Subject, ready: Rehearsed, units: int) -> Float[Tensor, " units"]:
    """Gradient times activation of the log-probability of the target's first token, summed over tokens and examples:
    the gradient on a mask of ones."""
    mask = Mask.ones(units, device=subject.model.device)
    with edited(subject, Plan({projector.hidden: mask})):
        return ready.gradient(subject, mask.values).cpu()
