"""How is a number reported with its uncertainty? As an `Interval`: estimate, bounds, n, level and method."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from jaxtyping import Bool, Float, Int
from torch import Tensor

from glasshouse.numerics import statistics
from glasshouse.numerics.randomness import seeded
from glasshouse.values import digits


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds."""

    value: float
    """The estimate; NaN where there is none."""
    low: float
    high: float
    n: int | None = None
    """Independent units behind the estimate: trials, items, or groups of items; None where that is not defined."""
    level: float = 0.95
    """Confidence level: in repeated experiments this fraction of such intervals covers the true value."""
    how: str = ""
    """The method that gave the bounds, such as Wilson or bootstrap."""
    percent: bool = False
    """A fraction, which every surface writes as a percentage."""

    @classmethod
    def rate(cls, successes: int, n: int, level: float = 0.95) -> Self:
        """A rate of n trials, with Wilson's interval. Without trials the value is NaN and the bounds are 0 and 1."""
        low, high = statistics.wilson(successes, n, level)
        return cls(successes / n if n else float("nan"), low, high, n, level, "Wilson", percent=True)

    @classmethod
    def exact_rate(cls, successes: int, n: int, level: float = 0.95) -> Self:
        """A rate of n trials, with Clopper and Pearson's interval, whose coverage is never below the level."""
        low, high = statistics.clopper_pearson(successes, n, level)
        return cls(successes / n if n else float("nan"), low, high, n, level, "Clopper-Pearson", percent=True)

    @classmethod
    def loss(cls, before: Bool[Tensor, " trials"], after: Bool[Tensor, " trials"], level: float = 0.95) -> Self:
        """The drop of a rate from before to after on the same trials, with Newcombe's interval."""
        both, lost, won = (int(kind.sum()) for kind in (before & after, before & ~after, ~before & after))
        n = len(before)
        low, high = statistics.paired(both, lost, won, n - both - lost - won, level)
        return cls((lost - won) / n if n else float("nan"), low, high, n, level, "Newcombe", percent=True)

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
        """A statistic of a sample, with bounds from resampling whole groups (images, prompts)."""
        n = len(sample) if groups is None else len(statistics.by_group(groups))
        drawn = statistics.bootstrap(statistic, sample, seeded(seed), groups=groups, draws=draws)
        low, high = statistics.quantiles(drawn, level)
        return cls(float(statistic(sample)), low, high, n, level, "bootstrap")

    @classmethod
    def mean(cls, sample: Float[Tensor, " items"], *, seed: int, draws: int = 1000, level: float = 0.95) -> Self:
        """A mean of independent items, with bounds from the bootstrap."""
        if len(sample) == 1:  # a single item has no spread to resample
            return cls(float(sample[0]), -math.inf, math.inf, 1, level, "a single item")
        drawn = statistics.bootstrap_means(sample, seeded(seed), draws=draws)
        low, high = statistics.quantiles(drawn, level)
        return cls(float(sample.double().mean()), low, high, len(sample), level, "bootstrap")

    @classmethod
    def of(cls, draws: Float[Tensor, " draws"], level: float = 0.95) -> Self:
        """The central `level` of draws from a null distribution; the value is their median."""
        low, high = statistics.quantiles(draws, level)
        return cls(statistics.quantiles(draws, 0)[0], low, high, len(draws), level, "quantiles of draws")

    def __str__(self) -> str:
        """`95% (92-97%) n=400`, `0.42 (0.35-0.51) n=8`."""
        return f"{self.words}{'' if self.n is None else f' n={self.n:,}'}"

    @property
    def words(self) -> str:
        """The same without n, as a headline has it."""
        return digits.spread(self.value, self.low, self.high, percent=self.percent)

    def overlaps(self, other: "Interval") -> bool:
        return self.low <= other.high and other.low <= self.high

    def above(self, threshold: float) -> bool:
        """Whether the whole interval lies above the threshold."""
        return self.low > threshold

    def below(self, threshold: float) -> bool:
        """Whether the whole interval lies below the threshold."""
        return self.high < threshold
