"""How is a number written down with its doubt? As an `Interval`: estimate, bounds, n, and how it was made."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from jaxtyping import Bool, Float, Int
from torch import Tensor

from glasshouse.numerics import statistics
from glasshouse.numerics.randomness import seeded


@dataclass(frozen=True, slots=True)
class Interval:
    """`value` with `level` confidence between `low` and `high`, from `n` independent units."""

    value: float
    low: float
    high: float
    n: int | None = None
    level: float = 0.95
    how: str = ""

    @classmethod
    def rate(cls, successes: int, n: int, level: float = 0.95) -> Self:
        """A share of n trials, with Wilson's interval. No trials: no value, and every rate is possible."""
        low, high = statistics.wilson(successes, n, level)
        return cls(successes / n if n else float("nan"), low, high, n, level, "Wilson")

    @classmethod
    def exact_rate(cls, successes: int, n: int, level: float = 0.95) -> Self:
        """A share of n trials whose coverage never falls short (Clopper and Pearson)."""
        low, high = statistics.clopper_pearson(successes, n, level)
        return cls(successes / n if n else float("nan"), low, high, n, level, "Clopper-Pearson")

    @classmethod
    def loss(cls, before: Bool[Tensor, " trials"], after: Bool[Tensor, " trials"], level: float = 0.95) -> Self:
        """How much lower a rate is after than before, on the same trials (Newcombe)."""
        both, lost, won = (int(kind.sum()) for kind in (before & after, before & ~after, ~before & after))
        n = len(before)
        low, high = statistics.paired(both, lost, won, n - both - lost - won, level)
        return cls((lost - won) / n if n else float("nan"), low, high, n, level, "Newcombe")

    @classmethod
    def bootstrap(
        cls,
        statistic: Callable[[Tensor], Tensor],
        sample: Float[Tensor, "items ..."],
        *,
        seed: int,
        groups: Int[Tensor, " items"] | None = None,
        draws: int = 1000,
        level: float = 0.95,
    ) -> Self:
        """A statistic of a sample; whole groups (images, prompts) are resampled."""
        n = len(sample) if groups is None else len(statistics.by_group(groups))
        drawn = statistics.bootstrap(statistic, sample, seeded(seed), groups=groups, draws=draws)
        low, high = statistics.quantiles(drawn, level)
        return cls(float(statistic(sample)), low, high, n, level, "bootstrap")

    @classmethod
    def mean(cls, sample: Float[Tensor, " items"], *, seed: int, draws: int = 1000, level: float = 0.95) -> Self:
        """A mean over independent items, by the bootstrap."""
        if len(sample) == 1:  # one item says nothing of how items differ
            return cls(float(sample[0]), -math.inf, math.inf, 1, level, "a single item")
        drawn = statistics.bootstrap_means(sample, seeded(seed), draws=draws)
        low, high = statistics.quantiles(drawn, level)
        return cls(float(sample.double().mean()), low, high, len(sample), level, "bootstrap")

    @classmethod
    def of(cls, draws: Float[Tensor, " draws"], level: float = 0.95) -> Self:
        """The band in which the middle `level` of draws from a null fall; its value is their median."""
        low, high = statistics.quantiles(draws, level)
        return cls(statistics.quantiles(draws, 0)[0], low, high, len(draws), level, "quantiles of draws")

    def __str__(self) -> str:
        n = "" if self.n is None else f" n={self.n}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]{n}"

    def overlaps(self, other: "Interval") -> bool:
        return self.low <= other.high and other.low <= self.high

    def above(self, threshold: float) -> bool:
        """Surely above: the whole interval is."""
        return self.low > threshold

    def below(self, threshold: float) -> bool:
        """Surely below: the whole interval is."""
        return self.high < threshold
