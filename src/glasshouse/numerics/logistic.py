"""How likely is it, given a few numbers and cases whose truth is known? Logistic regression for very few cases.

Numbers are put on one scale by the known cases, the weights are pulled towards zero, and the doubt comes from fitting
again to cases drawn with replacement: with two dozen of them it is the larger part of what can be said. Both kinds
count the same however many there are of each, so a probability is one where half of all cases are of the true kind.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glasshouse.numerics.randomness import seeded

STEPS = 50


@dataclass(frozen=True)
class Logistic:
    """A fitted line through log-odds."""

    mean: Float[Tensor, " numbers"]
    spread: Float[Tensor, " numbers"]
    weights: Float[Tensor, " numbers"]
    bias: float

    @classmethod
    def fit(
        cls, cases: Float[Tensor, "cases numbers"], truth: Bool[Tensor, " cases"], ridge: float = 1.0
    ) -> "Logistic":
        """By Newton's method; `ridge` is in units of one case's weight. Both kinds of cases must be there."""
        if not (truth.any() and (~truth).any()):
            raise ValueError("logistic regression needs cases of both kinds")
        cases = cases.double()
        mean, spread = cases.mean(0), cases.std(0, correction=0).clamp_min(1e-9)
        design = torch.cat([(cases - mean) / spread, torch.ones(len(cases), 1, dtype=torch.float64)], 1)
        counts = torch.where(truth, 2 * truth.sum(), 2 * (~truth).sum())
        share = len(cases) / counts.double()
        penalty = torch.full((design.shape[1],), ridge, dtype=torch.float64)
        penalty[-1] = 1e-6
        weights = torch.zeros(design.shape[1], dtype=torch.float64)
        for _ in range(STEPS):
            chance = torch.sigmoid(design @ weights)
            slope = design.T @ (share * (truth.double() - chance)) - penalty * weights
            curve = (design * (share * chance * (1 - chance))[:, None]).T @ design + torch.diag(penalty)
            step = cast(Tensor, torch.linalg.solve(curve, slope))  # pyright: ignore[reportUnknownMemberType]
            weights = weights + step
            if float(step.abs().max()) < 1e-10:
                break
        return cls(mean, spread, weights[:-1], float(weights[-1]))

    def chance(self, numbers: Float[Tensor, " numbers"]) -> float:
        """Probability that a case with these numbers is one of the true kind."""
        return float(torch.sigmoid(((numbers.double() - self.mean) / self.spread) @ self.weights + self.bias))


def chances(
    cases: Float[Tensor, "cases numbers"], truth: Bool[Tensor, " cases"], numbers: Float[Tensor, " numbers"], *,
    seed: int, draws: int = 200,
) -> Float[Tensor, " draws"]:  # fmt: skip
    """The probability by fits to cases drawn with replacement, each kind by itself."""
    generator, kinds = seeded(seed), [truth.nonzero()[:, 0], (~truth).nonzero()[:, 0]]
    found: list[float] = []
    for _ in range(draws):
        rows = torch.cat([kind[torch.randint(len(kind), (len(kind),), generator=generator)] for kind in kinds])
        found.append(Logistic.fit(cases[rows], truth[rows]).chance(numbers))
    return torch.tensor(found, dtype=torch.float64)
