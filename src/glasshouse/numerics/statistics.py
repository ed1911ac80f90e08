"""How sure can one be of a rate, a mean, a difference, and of several at once?

1. A rate: Wilson's score interval, or Clopper and Pearson's exact one when coverage must never fall short.
2. The difference of two rates on the same trials: Newcombe's interval, from Wilson's of both and how they go together.
3. Anything else: the bootstrap, resampling whole *groups* (images, prompts): tokens of one image are not independent.
4. Several tests at once: Holm's step-down correction.
5. "No effect": two one-sided tests against a stated margin, never a difference that failed to be significant.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval. No trials: everything is possible."""
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
    """The exact interval: the rates under which what was seen is not rarer than (1 - level) / 2 on either side."""
    _check_counts(successes, n, level)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else _root(lambda rate: 1 - _binomial_cdf(successes - 1, n, rate) - tail)
    high = 1.0 if successes == n else _root(lambda rate: tail - _binomial_cdf(successes, n, rate))
    return low, high


def paired(both: int, first: int, second: int, neither: int, level: float = 0.95) -> tuple[float, float]:
    """Newcombe's interval (1998, method 10) for the first rate less the second, from trials on which both, only the
    first, only the second or neither came about. No trials: everything is possible."""
    n = both + first + second + neither
    if n == 0:
        return -1.0, 1.0
    one, other = both + first, both + second
    (one_low, one_high), (other_low, other_high) = wilson(one, n, level), wilson(other, n, level)
    lead, product = both * neither - first * second, one * other * (n - one) * (n - other)
    if lead > 0:
        lead = max(0.0, lead - n / 2)
    together = lead / math.sqrt(product) if product else 0.0
    p, q = one / n, other / n

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * together * a * b + b * b))

    return p - q - reach(p - one_low, other_high - q), p - q + reach(one_high - p, q - other_low)


def bootstrap(
    statistic: Callable[[Tensor], Tensor],
    sample: Float[Tensor, "items ..."],
    generator: Generator,
    *,
    groups: Int[Tensor, " items"] | None = None,
    draws: int = 1000,
) -> Float[Tensor, " draws"]:
    """`statistic` of resampled `sample`, `draws` times, each of whole groups drawn with replacement (or of items)."""
    if len(sample) == 0:
        raise ValueError("the bootstrap needs at least one item")
    members = by_group(torch.arange(len(sample)) if groups is None else groups)
    picks = torch.randint(len(members), (draws, len(members)), generator=generator)
    if groups is None:
        return torch.stack([statistic(sample[pick]).double() for pick in picks])
    return torch.stack([statistic(sample[torch.cat([members[int(g)] for g in pick])]).double() for pick in picks])


def by_group(groups: Int[Tensor, " items"]) -> tuple[Int[Tensor, " members"], ...]:
    """The places of each group's items, one tensor per group."""
    groups = groups.cpu()
    order = groups.argsort(stable=True)
    return order.tensor_split(groups[order].diff().nonzero()[:, 0] + 1)


def bootstrap_means(
    sample: Float[Tensor, " items"], generator: Generator, *, draws: int = 1000
) -> Float[Tensor, " draws"]:
    """Means of resampled `sample`: what `bootstrap` gives for a mean of independent items, all draws at once."""
    if len(sample) == 0:
        raise ValueError("the bootstrap needs at least one item")
    picks = torch.randint(len(sample), (draws, len(sample)), generator=generator)
    return sample.double()[picks].mean(1)


def holm(p_values: Float[Tensor, " tests"]) -> Float[Tensor, " tests"]:
    """Holm's adjusted p-values: reject where they fall below the level, and the family-wise error stays below it."""
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
    """The middle `level` of the draws."""
    ends = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = map(float, torch.quantile(draws.double(), ends))
    return low, high


def auroc(scores: Float[Tensor, " items"], positive: Bool[Tensor, " items"]) -> float:
    """Chance that a positive scores above a negative; a tie counts half. By ranks, so it needs no threshold."""
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


def _binomial_cdf(k: int, n: int, rate: float) -> float:
    """P(X <= k) for X ~ Binomial(n, rate), summed in logarithms so that large n does not overflow."""
    if rate <= 0 or rate >= 1:
        return 1.0 if rate <= 0 or k >= n else 0.0
    logs: Sequence[float] = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(rate)
        + (n - i) * math.log1p(-rate)
        for i in range(k + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def _root(increasing: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return (low + high) / 2
