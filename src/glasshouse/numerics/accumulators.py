"""How are statistics of a million tokens computed in constant memory?

Each accumulator is updated with chunks of tokens (`update`) and merges with another over other tokens (`a + b`), in any
order and any split, so shards of one experiment can run anywhere. All of them hold plain tensors and are packed to disk
like a finding.

- `Moments`    count, mean, variance of each feature (Chan, Golub and LeVeque's merge: no cancellation)
- `Gram`       the same for pairs of features: covariance, second moments
- `Histogram`  counts between fixed edges, and counts below and above them
- `TopK`       for each feature, the tokens with the highest activation, and their positions
"""

from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

ROWS_AT_ONCE = 256
"""Rows of a wide residual that fit in the cache while they are centred and squared: five times as fast as 4,000."""
EMPTY = torch.empty(0, dtype=torch.float64)


class Accumulator(Protocol):
    """A statistic for `gather`. `fresh` gives an empty accumulator with the same settings."""

    def fresh(self) -> Self: ...

    def update(
        self, values: Num[Tensor, "tokens ..."], examples: Int[Tensor, " tokens"], positions: Int[Tensor, " tokens"]
    ) -> None: ...

    def __add__(self, other: Self, /) -> Self: ...


@dataclass
class Moments:
    """Count, mean and variance per feature, in float64."""

    count: int = 0
    mean: Float[Tensor, "..."] = field(default_factory=lambda: EMPTY)
    squares: Float[Tensor, "..."] = field(default_factory=lambda: EMPTY)
    """Sum of squared deviations from the mean."""

    def fresh(self) -> "Moments":
        return Moments()

    def update(
        self, values: Num[Tensor, "tokens ..."], examples: Int[Tensor, " tokens"], positions: Int[Tensor, " tokens"]
    ) -> None:
        del examples, positions
        if not len(values):
            return
        merged = self
        for start in range(0, len(values), ROWS_AT_ONCE):
            part = values[start : start + ROWS_AT_ONCE]
            # Shifted by its own mean the squares stay small, so float32 products lose nothing; sums are float64.
            mean, centred, missed = _centred(part)
            squares = centred.square_().sum(0, dtype=torch.float64) - len(part) * missed.square()
            merged = merged + Moments(len(part), mean, squares.clamp_min(0))
        self.count, self.mean, self.squares = merged.count, merged.mean, merged.squares

    def __add__(self, other: "Moments") -> "Moments":
        if not self.count or not other.count:
            return replace(self if self.count else other)
        _same_shape(self.mean, other.mean)
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        return Moments(count, mean, self.squares + other.squares + step.square() * (self.count * other.count / count))

    @property
    def variance(self) -> Float[Tensor, "..."]:
        """Unbiased; undefined below two tokens."""
        if self.count < 2:
            raise ValueError(f"a variance needs at least 2 tokens, got {self.count}")
        return self.squares / (self.count - 1)


@dataclass
class Gram:
    """Second moments of pairs of features. Each chunk is centred first, so a large mean costs no digits."""

    count: int = 0
    mean: Float[Tensor, " features"] = field(default_factory=lambda: EMPTY)
    scatter: Float[Tensor, "features features"] = field(default_factory=lambda: EMPTY.reshape(0, 0))
    """Sum over tokens of the outer product of deviations from the mean."""

    def fresh(self) -> "Gram":
        return Gram()

    def update(
        self, values: Num[Tensor, "tokens ..."], examples: Int[Tensor, " tokens"], positions: Int[Tensor, " tokens"]
    ) -> None:
        del examples, positions
        if not len(values):
            return
        mean, centred, missed = _centred(values.flatten(1))
        scatter = (centred.T @ centred).double().addr_(missed, missed, alpha=-len(values))
        chunk = Gram(len(values), mean, scatter)
        if not self.count:
            self.count, self.mean, self.scatter = chunk.count, chunk.mean, chunk.scatter
            return
        _same_shape(self.mean, mean)
        step, count = mean - self.mean, self.count + chunk.count
        self.scatter += chunk.scatter  # in place: at 4096 features this matrix is 128 MiB, and one copy is enough
        self.scatter.addr_(step, step, alpha=self.count * chunk.count / count)
        self.mean, self.count = self.mean + step * (chunk.count / count), count

    def __add__(self, other: "Gram") -> "Gram":
        if not self.count or not other.count:
            full = self if self.count else other
            return replace(full, scatter=full.scatter.clone())  # `update` adds in place, so the sum needs its own
        _same_shape(self.mean, other.mean)
        count, step = self.count + other.count, other.mean - self.mean
        scatter = (self.scatter + other.scatter).addr_(step, step, alpha=self.count * other.count / count)
        return Gram(count, self.mean + step * (other.count / count), scatter)

    @property
    def covariance(self) -> Float[Tensor, "features features"]:
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 tokens, got {self.count}")
        return self.scatter / (self.count - 1)

    @property
    def second_moment(self) -> Float[Tensor, "features features"]:
        """Mean of x xᵀ, not centred."""
        return torch.addr(self.scatter / self.count, self.mean, self.mean)


@dataclass
class Histogram:
    """Counts of all values between `low` and `high`, in `bins` equal steps; the last step includes `high`."""

    low: float
    high: float
    bins: int = 64
    counts: Int[Tensor, " bins"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    below: int = 0
    above: int = 0

    def __post_init__(self) -> None:
        if not self.low < self.high or self.bins < 1:
            raise ValueError(f"a histogram needs low < high and a bin, got {self.low}, {self.high}, {self.bins}")
        if not len(self.counts):
            self.counts = torch.zeros(self.bins, dtype=torch.int64)

    def fresh(self) -> "Histogram":
        return Histogram(self.low, self.high, self.bins)

    def update(
        self, values: Num[Tensor, "tokens ..."], examples: Int[Tensor, " tokens"], positions: Int[Tensor, " tokens"]
    ) -> None:
        del examples, positions
        flat = values.flatten().double()
        if flat.isnan().any():
            raise ValueError("a value is not a number (NaN)")
        self.below += int((flat < self.low).sum())
        self.above += int((flat > self.high).sum())
        inside = flat[(flat >= self.low) & (flat <= self.high)]
        steps = ((inside - self.low) * (self.bins / (self.high - self.low))).long().clamp_max(self.bins - 1)
        self.counts += torch.bincount(steps, minlength=self.bins).cpu()

    def __add__(self, other: "Histogram") -> "Histogram":
        if (self.low, self.high, self.bins) != (other.low, other.high, other.bins):
            mine, theirs = (f"{each.bins} bins over {each.low}..{each.high}" for each in (self, other))
            raise ValueError(f"histograms of {mine} and {theirs} do not merge")
        below, above = self.below + other.below, self.above + other.above
        return Histogram(self.low, self.high, self.bins, self.counts + other.counts, below, above)


@dataclass
class TopK:
    """For each feature the `k` highest values and their tokens. Ties go to the earlier example, then position."""

    k: int = 8
    values: Num[Tensor, "kept ..."] = field(default_factory=lambda: EMPTY)
    examples: Int[Tensor, "kept ..."] = field(default_factory=lambda: EMPTY.long())
    positions: Int[Tensor, "kept ..."] = field(default_factory=lambda: EMPTY.long())

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"TopK needs a k of at least 1, got {self.k}")

    def fresh(self) -> "TopK":
        return TopK(self.k)

    def update(
        self, values: Num[Tensor, "tokens ..."], examples: Int[Tensor, " tokens"], positions: Int[Tensor, " tokens"]
    ) -> None:
        if not len(values):
            return
        _finite(values)
        keep = values.float().topk(min(2 * self.k, len(values)), 0) if len(values) > 8 * self.k else None
        if keep is not None and bool((keep.values[self.k - 1] > keep.values[-1]).all()):
            # No tie reaches beyond the preselection, so it is exact and far cheaper than a sort.
            chunk = TopK(self.k, keep.values, examples[keep.indices], positions[keep.indices])
        else:
            where = [index.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values) for index in (examples, positions)]
            chunk = TopK(self.k, values.float(), *where)
        merged = self + chunk
        self.values, self.examples, self.positions = merged.values, merged.examples, merged.positions

    def __add__(self, other: "TopK") -> "TopK":
        if self.k != other.k:
            raise ValueError(f"the {self.k} highest and the {other.k} highest do not merge")
        if not len(self.values) or not len(other.values):
            parts = [self if len(self.values) else other]
        else:
            _same_shape(self.values[0], other.values[0])
            parts = [self, other]
        values = torch.cat([part.values for part in parts])
        examples = torch.cat([part.examples for part in parts])
        positions = torch.cat([part.positions for part in parts])
        for key, descending in ((2, False), (1, False), (0, True)):  # least important key first; each sort is stable
            keys = (values, examples, positions)[key]
            order = keys.sort(dim=0, descending=descending, stable=True).indices
            values, examples, positions = (column.gather(0, order) for column in (values, examples, positions))
        return TopK(self.k, values[: self.k], examples[: self.k], positions[: self.k])


def _centred(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean in float64, the centred values in at least float32, and the rounding error of the subtracted mean."""
    enough = torch.promote_types(values.dtype, torch.float32) if values.is_floating_point() else torch.float64
    wide = values.to(enough)
    mean = _finite(wide.mean(0, dtype=torch.float64))
    shift = mean.to(enough)
    return mean, wide - shift, mean - shift


def _finite(values: Tensor) -> Tensor:
    if not bool(values.isfinite().all()):
        raise ValueError("a value is not finite (NaN or infinity)")
    return values


def _same_shape(mine: Tensor, theirs: Tensor) -> None:
    if mine.shape != theirs.shape:
        raise ValueError(f"accumulators over {tuple(mine.shape)} and {tuple(theirs.shape)} features do not merge")
