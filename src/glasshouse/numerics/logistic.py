"""How probable is the positive class, given a few numbers and labelled cases? Logistic regression for few cases.

Numbers are standardised by the labelled cases, weights are penalised towards zero, and the uncertainty comes from fits
to cases drawn with replacement: with two dozen cases it is large. Both classes weigh the same whatever their sizes, so
a probability assumes that half of all cases are positive. Newton's method is ours because scipy has no logistic
regression, and ten lines are not worth another dependency.
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
    """A fitted model: log-odds that are linear in the standardised numbers."""

    mean: Float[Tensor, " numbers"]
    spread: Float[Tensor, " numbers"]
    weights: Float[Tensor, " numbers"]
    bias: float

    @classmethod
    def fit(
        cls, cases: Float[Tensor, "cases numbers"], truth: Bool[Tensor, " cases"], ridge: float = 1.0
    ) -> "Logistic":
        """By Newton's method; `ridge` is in units of one case's weight. Both classes must occur."""
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
            probability = torch.sigmoid(design @ weights)
            gradient = design.T @ (share * (truth.double() - probability)) - penalty * weights
            curvature = share * probability * (1 - probability)
            hessian = (design * curvature[:, None]).T @ design + torch.diag(penalty)
            step = cast(Tensor, torch.linalg.solve(hessian, gradient))  # pyright: ignore[reportUnknownMemberType]
            weights = weights + step
            if float(step.abs().max()) < 1e-10:
                break
        return cls(mean, spread, weights[:-1], float(weights[-1]))

    def chance(self, numbers: Float[Tensor, " numbers"]) -> float:
        """The probability that a case with these numbers is positive."""
        return float(torch.sigmoid(((numbers.double() - self.mean) / self.spread) @ self.weights + self.bias))


def chances(
    cases: Float[Tensor, "cases numbers"], truth: Bool[Tensor, " cases"], numbers: Float[Tensor, " numbers"], *,
    seed: int, draws: int = 200,
) -> Float[Tensor, " draws"]:  # fmt: skip
    """That probability by fits to cases drawn with replacement, separately in each class."""
    generator, classes = seeded(seed), [truth.nonzero()[:, 0], (~truth).nonzero()[:, 0]]
    probabilities: list[float] = []
    for _ in range(draws):
        rows = torch.cat([kind[torch.randint(len(kind), (len(kind),), generator=generator)] for kind in classes])
        probabilities.append(Logistic.fit(cases[rows], truth[rows]).chance(numbers))
    return torch.tensor(probabilities, dtype=torch.float64)
