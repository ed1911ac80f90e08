"""Accumulators agree with one pass over everything, however the tokens were split, ordered and merged."""

import functools
import math
import operator
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.numerics.accumulators import Gram, Histogram, Moments, TopK
from glasshouse.numerics.randomness import seeded
from glasshouse.values.codec import digest, pack, unpack

thorough = settings(max_examples=60, deadline=None, derandomize=True, database=None)
ALL = [Moments(), Gram(), Histogram(-2, 2, 8), TopK(3)]
each = pytest.mark.parametrize("empty", ALL, ids=lambda empty: type(empty).__name__)


def places(count: int, first: int = 0):
    """Five tokens an example."""
    numbers = torch.arange(first, first + count)
    return numbers // 5, numbers % 5


def seen(empty, *chunks, first: int = 0):
    """A fresh accumulator that saw these chunks one after the other."""
    accumulator = empty.fresh()
    for chunk in chunks:
        accumulator.update(chunk, *places(len(chunk), first))
        first += len(chunk)
    return accumulator


def assert_same(one, two):
    """Counts and places exactly, sums to rounding."""
    for mine, theirs in zip(astuple(one), astuple(two), strict=True):
        if isinstance(mine, torch.Tensor) and mine.is_floating_point():
            scale = float(theirs.abs().max()) if theirs.numel() else 0.0
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6 * scale)
        elif isinstance(mine, torch.Tensor):
            assert torch.equal(mine, theirs)
        else:
            assert mine == theirs


@st.composite
def splits(draw):
    """Tokens by features with many ties, where to cut them, and in which order the shards come together."""
    count, features = draw(st.integers(1, 60)), draw(st.integers(1, 3))
    values = torch.randint(-9, 9, (count, features), generator=seeded(draw(st.integers(0, 99)))) / 4
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=5)))
    shards = list(zip([0, *cuts], [*cuts, count], strict=True))
    return values, shards, draw(st.permutations(range(len(shards))))


@each
class TestEveryAccumulator:
    @given(splits())
    @thorough
    def test_splits_and_orders_do_not_matter(self, empty, split):
        values, shards, order = split
        at_once = seen(empty, values)
        assert_same(seen(empty, *(values[a:b] for a, b in shards)), at_once)
        parts = [seen(empty, values[a:b], first=a) for a, b in shards]
        assert_same(functools.reduce(operator.add, (parts[i] for i in order)), at_once)
        assert_same(functools.reduce(lambda right, left: left + right, parts), at_once)

    def test_an_empty_one_changes_nothing_and_shares_nothing(self, empty):
        values = torch.tensor([[1.0, -1.0], [0.5, 0.0], [-0.25, 1.5]])
        full, expected = seen(empty, values), seen(empty, values)
        for merged in (full + empty.fresh(), empty.fresh() + full, full + full.fresh() + empty.fresh()):
            assert_same(merged, expected)
            merged.update(torch.ones(2, 2), *places(2))
            assert_same(full, expected)

    def test_no_tokens_change_nothing(self, empty):
        accumulator = seen(empty, torch.tensor([[1.0, -1.0], [0.5, 0.0]]))
        before = digest(accumulator)
        accumulator.update(torch.empty(0, 2), *places(0))
        assert digest(accumulator) == before
        assert digest(seen(empty, torch.empty(0, 2))) == digest(empty.fresh())

    def test_nan_is_refused_and_leaves_no_trace(self, empty):
        accumulator = seen(empty, torch.ones(3, 2))
        before = digest(accumulator)
        with pytest.raises(ValueError, match="NaN"):
            accumulator.update(torch.tensor([[1.0, math.nan]]), *places(1))
        assert digest(accumulator) == before

    @pytest.mark.parametrize("values", [None, torch.tensor([[1.0, -1.0], [0.5, 0.25]])], ids=["empty", "full"])
    def test_comes_back_from_disk_and_goes_on(self, empty, values):
        accumulator = empty.fresh() if values is None else seen(empty, values)
        back = unpack(type(empty), *pack(accumulator))
        assert digest(back) == digest(accumulator)
        assert_same(back + seen(empty, torch.ones(1, 2), first=9), accumulator + seen(empty, torch.ones(1, 2), first=9))


@pytest.mark.parametrize("empty", [Moments(), Gram(), TopK(3)], ids=lambda empty: type(empty).__name__)
class TestOverFeatures:
    def test_other_features_are_refused(self, empty):
        three, four = seen(empty, torch.ones(5, 3)), torch.ones(5, 4)
        with pytest.raises(ValueError, match=r"\(3,\) and \(4,\) features do not merge"):
            three + seen(empty, four)
        with pytest.raises(ValueError, match=r"\(3,\) and \(4,\) features do not merge"):
            three.update(four, *places(5))

    @pytest.mark.parametrize("value", [math.inf, -math.inf])
    def test_infinity_is_refused(self, empty, value):
        with pytest.raises(ValueError, match="not finite"):
            seen(empty, torch.tensor([[0.0], [value]]))


# Means so large, or numbers so coarse, that squares about a rounded mean, or in the given type, would be wrong.
HARD = {
    "float32 far from zero": torch.randn(4000, 3, generator=seeded(0)) * 0.1 + 1e6,
    "bfloat16 far from zero": (torch.randn(4000, 3, generator=seeded(0)) * 9 + 1000).bfloat16(),
    "float16 whose squares overflow": (torch.randn(4000, 3, generator=seeded(0)) * 300).half(),
    "whole numbers": torch.randint(0, 3, (4000, 3), generator=seeded(0)),
    "float64": torch.randn(4000, 3, generator=seeded(0), dtype=torch.float64) + 1e9,
    "all the same": torch.full((4000, 3), 0.1),
}


@pytest.mark.parametrize("values", HARD.values(), ids=HARD.keys())
class TestPrecision:
    @pytest.mark.parametrize("size", [4000, 170])
    def test_mean_and_variance(self, values, size):
        moments, exact = seen(Moments(), *values.split(size)), values.double()
        torch.testing.assert_close(moments.mean, exact.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(moments.variance, exact.var(0), rtol=1e-6, atol=1e-15)
        assert (moments.variance >= 0).all()

    @pytest.mark.parametrize("size", [4000, 170])
    def test_covariance_and_second_moment(self, values, size):
        gram, exact = seen(Gram(), *values.split(size)), values.double()
        near = {"rtol": 1e-6, "atol": 2e-5 * float(exact.var(0).max()) + 1e-15}  # products are summed in float32
        torch.testing.assert_close(gram.covariance, exact.T.cov(), **near)
        torch.testing.assert_close(gram.second_moment, exact.T @ exact / len(exact), **near)


def test_moments_keep_the_shape_of_features():
    values = torch.randn(50, 4, 3, generator=seeded(0))
    torch.testing.assert_close(seen(Moments(), values).variance, values.double().var(0), rtol=1e-6, atol=0)
    flat = values.flatten(1).double()
    torch.testing.assert_close(seen(Gram(), values).covariance, flat.T.cov(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize(("empty", "spread"), [(Moments(), "variance"), (Gram(), "covariance")])
def test_spread_of_fewer_than_two_tokens_is_refused(empty, spread, count):
    with pytest.raises(ValueError, match=f"a {spread} needs at least 2 tokens, got {count}"):
        getattr(seen(empty, torch.ones(count, 2)), spread)


class TestHistogram:
    @given(st.lists(st.integers(-20, 20), max_size=60), st.sampled_from([1, 4, 16]))
    @thorough
    def test_counts_like_numpy_and_keeps_the_outside_apart(self, quarters, bins):
        values = torch.tensor(quarters, dtype=torch.float32) / 4  # steps fall on edges
        found = seen(Histogram(-2, 2, bins), values[:, None])
        assert found.counts.tolist() == np.histogram(values.numpy(), bins, (-2, 2))[0].tolist()
        assert (found.below, found.above) == (int((values < -2).sum()), int((values > 2).sum()))

    def test_infinities_are_outside(self):
        found = seen(Histogram(0, 1, 2), torch.tensor([[math.inf, -math.inf, 0.5, 1.0]]))
        assert (found.below, found.above, found.counts.tolist()) == (1, 1, [0, 2])

    @pytest.mark.parametrize("other", [Histogram(-2, 2, 4), Histogram(-2, 3, 8), Histogram(-1, 2, 8)])
    def test_other_bins_are_refused(self, other):
        told = rf"8 bins over -2\S*2 and {other.bins} bins over {other.low}\S*{other.high} do not merge"
        with pytest.raises(ValueError, match=told):
            Histogram(-2, 2, 8) + other

    @pytest.mark.parametrize(("low", "high", "bins"), [(1, 1, 4), (2, 1, 4), (0, 1, 0), (math.nan, 1, 4)])
    def test_without_room_is_refused(self, low, high, bins):
        with pytest.raises(ValueError, match="needs low < high and a bin"):
            Histogram(low, high, bins)


def highest(k: int, values: torch.Tensor):
    """By sorting in Python: value descending, then example, then position."""
    examples, positions = places(len(values))
    rows = zip(values.tolist(), examples.tolist(), positions.tolist(), strict=True)
    return sorted(rows, key=lambda row: (-row[0], row[1], row[2]))[:k]


class TestTopK:
    # More than 8 k tokens take the shortcut unless ties reach past what it keeps; few distinct values make them do so.
    @given(st.integers(1, 4), st.integers(1, 90), st.sampled_from([1, 3, 8, 40, 10**6]), st.integers(0, 10**6))
    @settings(thorough, max_examples=300)
    def test_is_what_sorting_finds(self, k, count, distinct, seed):
        values = torch.randint(distinct, (count, 2), generator=seeded(seed)).float()
        order = torch.randperm(count, generator=seeded(seed))
        found = TopK(k)
        examples, positions = places(count)
        found.update(values[order], examples[order], positions[order])
        for feature in range(2):
            columns = (found.values, found.examples, found.positions)
            rows = list(zip(*(column[:, feature].tolist() for column in columns), strict=True))
            assert rows == highest(k, values[:, feature])

    def test_all_alike_the_earliest_win(self):
        found = seen(TopK(2), torch.zeros(100, 1))
        assert (found.examples.flatten().tolist(), found.positions.flatten().tolist()) == ([0, 0], [0, 1])

    def test_keeps_the_shape_of_units(self):
        values = torch.randn(70, 4, 3, generator=seeded(0))
        torch.testing.assert_close(seen(TopK(5), values).values, values.sort(0, descending=True).values[:5])

    def test_another_k_is_refused(self):
        with pytest.raises(ValueError, match="the 2 highest and the 3 highest do not merge"):
            TopK(2) + TopK(3)

    def test_none_at_all_is_refused(self):
        with pytest.raises(ValueError, match="k of at least 1, got 0"):
            TopK(0)
