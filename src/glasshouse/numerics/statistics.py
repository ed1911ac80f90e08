"""How uncertain is a rate, a mean or a difference, and which of several tests are significant?

1. A rate: Wilson's score interval, or Clopper and Pearson's exact one where coverage must never be below the level.
2. The difference of two rates on the same trials: Newcombe's interval, from both Wilson intervals and a correlation.
3. Anything else: the bootstrap, resampling whole *groups* (images, prompts), because tokens of one image are dependent.
4. Several tests at once: Holm's step-down correction.
5. "No effect": two one-sided tests against a stated margin, never a difference that failed to be significant.

Only the beta quantile comes from scipy (scipy.special). Importing scipy.stats takes longer than a short command, it has
neither Newcombe's interval nor Holm's correction, and its bootstrap does not resample groups with a torch generator.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval; (0, 1) without trials."""
    _check_counts(successes, n, level)
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate, shrink = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval: all rates under which neither tail beyond the observed count is below (1 - level) / 2."""
    _check_counts(successes, n, level)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _beta_quantile(successes, n - successes + 1, tail)
    high = 1.0 if successes == n else _beta_quantile(successes + 1, n - successes, 1 - tail)
    return low, high


def paired(both: int, first: int, second: int, neither: int, level: float = 0.95) -> tuple[float, float]:
    """Newcombe's interval (1998, method 10) for the first rate minus the second, from the numbers of trials on which
    both, only the first, only the second or neither succeeded; (-1, 1) without trials."""
    n = both + first + second + neither
    if n == 0:
        return -1.0, 1.0
    a, b = both + first, both + second
    (a_low, a_high), (b_low, b_high) = wilson(a, n, level), wilson(b, n, level)
    covariance, product = both * neither - first * second, a * b * (n - a) * (n - b)
    if covariance > 0:
        covariance = max(0.0, covariance - n / 2)  # continuity correction
    phi = covariance / math.sqrt(product) if product else 0.0
    p, q = a / n, b / n

    def distance(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    return p - q - distance(p - a_low, b_high - q), p - q + distance(a_high - p, q - b_low)


def bootstrap(
    statistic: Callable[[Tensor], Tensor],
    sample: Float[Tensor, "items ..."],
    generator: Generator,
    *,
    groups: Int[Tensor, " items"] | None = None,
    draws: int = 1000,
) -> Float[Tensor, " draws"]:
    """`statistic` of `draws` resamples of `sample`, each of whole groups (or of items) drawn with replacement."""
    if len(sample) == 0:
        raise ValueError("the bootstrap needs at least one item")
    members = by_group(torch.arange(len(sample)) if groups is None else groups)
    picks = torch.randint(len(members), (draws, len(members)), generator=generator)
    if groups is None:
        return torch.stack([statistic(sample[pick]).double() for pick in picks])
    return torch.stack([statistic(sample[torch.cat([members[int(g)] for g in pick])]).double() for pick in picks])


def by_group(groups: Int[Tensor, " items"]) -> tuple[Int[Tensor, " members"], ...]:
    """The indices of each group's items, one tensor for each group."""
    groups = groups.cpu()
    order = groups.argsort(stable=True)
    return order.tensor_split(groups[order].diff().nonzero()[:, 0] + 1)


def bootstrap_means(
    sample: Float[Tensor, " items"], generator: Generator, *, draws: int = 1000
) -> Float[Tensor, " draws"]:
    """Means of resamples of `sample`: the `bootstrap` of a mean of independent items, all draws at once."""
    if len(sample) == 0:
        raise ValueError("the bootstrap needs at least one item")
    picks = torch.randint(len(sample), (draws, len(sample)), generator=generator)
    return sample.double()[picks].mean(1)


def holm(p_values: Float[Tensor, " tests"]) -> Float[Tensor, " tests"]:
    """Holm's adjusted p-values: rejecting those below a level keeps the family-wise error rate below it."""
    order = p_values.argsort(stable=True)
    weights = torch.arange(len(p_values), 0, -1, device=p_values.device)
    adjusted = (p_values[order] * weights).cummax(0).values.clamp_max(1)
    return torch.empty_like(adjusted).scatter_(0, order, adjusted)


def equivalent(differences: Float[Tensor, " draws"], margin: float, level: float = 0.95) -> bool:
    """Two one-sided tests on bootstrap draws: does the (2 * level - 1) interval lie inside (-margin, margin)?"""
    if margin <= 0:
        raise ValueError(f"an equivalence margin must be positive, got {margin}")
    low, high = quantiles(differences, 2 * level - 1)
    return -margin < low and high < margin


def quantiles(draws: Float[Tensor, " draws"], level: float = 0.95) -> tuple[float, float]:
    """The bounds of the central `level` of the draws."""
    ends = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = map(float, torch.quantile(draws.double(), ends))
    return low, high


def auroc(scores: Float[Tensor, " items"], positive: Bool[Tensor, " items"]) -> float:
    """The probability that a positive scores above a negative; ties count half."""
    if scores.isnan().any():
        raise ValueError("a score is not a number (NaN)")
    wins, losses = scores[positive].double(), scores[~positive].double().sort().values
    if not len(wins) or not len(losses):
        raise ValueError("AUROC needs at least one positive and one negative")
    below = torch.searchsorted(losses, wins, right=False) + torch.searchsorted(losses, wins, right=True)
    return float(below.double().mean() / (2 * len(losses)))


def _check_counts(successes: int, n: int, level: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")


def _beta_quantile(a: int, b: int, probability: float) -> float:
    # Imported here because most commands never compute an exact interval. scipy brings no stubs.
    from scipy.special import betaincinv  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    return float(cast(float, betaincinv(a, b, probability)))
