"""Intervals against published values, the bootstrap against theory, ranks and corrections against brute force."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.numerics import statistics
from glasshouse.numerics.randomness import seeded

thorough = settings(max_examples=60, deadline=None, derandomize=True, database=None)
counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))

# Newcombe, Statistics in Medicine 17 (1998), table I; the first line is the textbook 8 of 10.
PUBLISHED = [
    (8, 10, (0.4902, 0.9433), (0.4439, 0.9748)),
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]


def chance(k: int, n: int, rate: float) -> float:
    return math.comb(n, k) * rate**k * (1 - rate) ** (n - k)


@pytest.mark.parametrize(("successes", "n", "wilson", "exact"), PUBLISHED)
def test_rate_intervals_are_the_published_ones(successes, n, wilson, exact):
    assert statistics.wilson(successes, n) == pytest.approx(wilson, abs=5e-5)
    assert statistics.clopper_pearson(successes, n) == pytest.approx(exact, abs=5e-5)


@pytest.mark.parametrize("interval", [statistics.wilson, statistics.clopper_pearson])
class TestRateIntervals:
    @given(counts)
    @thorough
    def test_hold_the_rate_and_lie_within_0_and_1(self, interval, seen):
        low, high = interval(*seen)
        assert 0 <= low <= seen[0] / seen[1] <= high <= 1

    @given(counts)
    @thorough
    def test_failures_mirror_successes(self, interval, seen):
        successes, n = seen
        low, high = interval(successes, n)
        assert interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)

    def test_more_confidence_is_wider(self, interval):
        (narrow_low, narrow_high), (wide_low, wide_high) = interval(3, 12, 0.8), interval(3, 12, 0.99)
        assert wide_low < narrow_low < narrow_high < wide_high

    def test_without_trials_every_rate_is_possible(self, interval):
        assert interval(0, 0) == (0, 1)

    @pytest.mark.parametrize(("successes", "n"), [(11, 10), (-1, 10), (0, -1)])
    def test_impossible_counts_are_refused(self, interval, successes, n):
        with pytest.raises(ValueError, match=f"{successes} successes in {n} trials"):
            interval(successes, n)

    @pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95.0, math.nan])
    def test_impossible_levels_are_refused(self, interval, level):
        with pytest.raises(ValueError, match="a level lies between 0 and 1"):
            interval(1, 2, level)


def coverages(interval, n: int) -> list[float]:
    """The chance that the interval holds the rate, computed exactly, for rates from 0.025 to 0.975."""
    ends = [interval(k, n) for k in range(n + 1)]
    rates = [i / 40 for i in range(1, 40)]
    return [sum(chance(k, n, rate) for k, (low, high) in enumerate(ends) if low <= rate <= high) for rate in rates]


def test_clopper_pearson_never_falls_short_and_wilson_is_right_on_average():
    assert min(coverages(statistics.clopper_pearson, 20)) >= 0.95
    wilson = coverages(statistics.wilson, 20)
    assert sum(wilson) / len(wilson) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("successes", "n"), [(1, 9), (4, 9), (33, 90)])
def test_clopper_pearson_ends_where_the_tails_are(successes, n):
    low, high = statistics.clopper_pearson(successes, n, 0.9)
    assert sum(chance(k, n, low) for k in range(successes, n + 1)) == pytest.approx(0.05, rel=1e-9)
    assert sum(chance(k, n, high) for k in range(successes + 1)) == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize(
    ("counts", "published"), [((36, 12, 2, 0), (0.0569, 0.3404)), ((54, 0, 0, 0), (-0.0664, 0.0664))]
)
def test_paired_differences_are_newcombe_s(counts, published):
    assert statistics.paired(*counts) == pytest.approx(published, abs=5e-5)
    both, first, second, neither = counts
    low, high = statistics.paired(both, second, first, neither)
    assert (-high, -low) == pytest.approx(published, abs=5e-5)
    assert statistics.paired(0, 0, 0, 0) == (-1.0, 1.0)


def test_paired_intervals_hold_the_difference_as_often_as_they_say():
    chances = torch.tensor([0.80, 0.06, 0.02, 0.12])
    drawn = torch.multinomial(chances, 80 * 2000, replacement=True, generator=seeded(0)).reshape(2000, 80)
    held = 0
    for row in drawn:
        low, high = statistics.paired(*torch.bincount(row, minlength=4).tolist())
        held += low <= 0.04 <= high
    assert 0.94 <= held / 2000 <= 0.985


def test_clopper_pearson_of_many_trials_is_near_the_normal_approximation():
    spread = 1.6449 * math.sqrt(0.35 * 0.65 / 2000)
    found = statistics.clopper_pearson(700, 2000, 0.9)
    assert found == pytest.approx((0.35 - spread, 0.35 + spread), abs=5e-4)


class TestBootstrap:
    def test_spread_of_a_mean_is_its_standard_error(self):
        sample = torch.randn(80, generator=seeded(0))
        draws = statistics.bootstrap(torch.mean, sample, seeded(1), draws=4000)
        assert draws.shape == (4000,)
        assert draws.mean().item() == pytest.approx(sample.mean().item(), abs=0.01)
        assert draws.std().item() == pytest.approx(sample.std(correction=0).item() / math.sqrt(80), rel=0.05)

    def test_copies_in_a_group_add_no_certainty(self):
        sample = torch.randn(30, generator=seeded(0), dtype=torch.float64)
        once = statistics.bootstrap(torch.mean, sample, seeded(1))
        copies, groups = sample.repeat(9), torch.arange(30).repeat(9)
        grouped = statistics.bootstrap(torch.mean, copies, seeded(1), groups=groups)
        ungrouped = statistics.bootstrap(torch.mean, copies, seeded(1))
        torch.testing.assert_close(grouped, once)
        assert ungrouped.std().item() == pytest.approx(once.std().item() / 3, rel=0.1)

    def test_groups_are_drawn_whole(self):
        groups = torch.tensor([7, 2, 7, 5, 2, 7])  # sizes 3, 2 and 1, interleaved

        def whole(drawn):
            sizes = {group: int((drawn == group).sum()) for group in (7, 2, 5)}
            return torch.tensor(float(sizes[7] % 3 == 0 and sizes[2] % 2 == 0 and sum(sizes.values()) == len(drawn)))

        assert statistics.bootstrap(whole, groups.float(), seeded(0), groups=groups, draws=200).all()

    def test_same_seed_same_draws_and_the_global_state_is_left_alone(self):
        sample, before = torch.arange(9.0), torch.get_rng_state()
        first, again, other = (statistics.bootstrap(torch.mean, sample, seeded(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), before)

    def test_means_all_at_once_are_the_means_one_by_one(self):
        sample = torch.randn(40, generator=seeded(0))
        one_by_one = statistics.bootstrap(torch.mean, sample, seeded(1))
        torch.testing.assert_close(statistics.bootstrap_means(sample, seeded(1)), one_by_one, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        "bootstrap", [lambda *given: statistics.bootstrap(torch.mean, *given), statistics.bootstrap_means]
    )
    def test_of_nothing_is_refused(self, bootstrap):
        with pytest.raises(ValueError, match="at least one item"):
            bootstrap(torch.empty(0), seeded(0))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
@thorough
def test_by_group_parts_the_places_by_their_group(groups):
    found = [places.tolist() for places in statistics.by_group(torch.tensor(groups))]
    assert found == [[i for i, group in enumerate(groups) if group == one] for one in sorted(set(groups))]


class TestHolm:
    def test_by_hand(self):
        # In order: 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, and 0.04 * 1 may not fall below 0.06 again.
        adjusted = statistics.holm(torch.tensor([0.01, 0.04, 0.03, 0.005]))
        torch.testing.assert_close(adjusted, torch.tensor([0.03, 0.06, 0.06, 0.02]))

    @given(st.lists(st.floats(0, 1), max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
    @thorough
    def test_rejects_what_stepping_down_rejects(self, p_values, level):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(place)
        adjusted = statistics.holm(torch.tensor(p_values, dtype=torch.float64))
        assert {i for i, p in enumerate(adjusted.tolist()) if p <= level} == rejected
        assert all(p <= a <= 1 for p, a in zip(p_values, adjusted.tolist(), strict=True))


class TestQuantiles:
    draws = torch.linspace(-1, 1, 2001, dtype=torch.float64)

    @pytest.mark.parametrize(("level", "end"), [(0.95, 0.95), (0.5, 0.5), (0.0, 0.0), (1.0, 1.0)])
    def test_are_the_middle_of_the_draws(self, level, end):
        assert statistics.quantiles(self.draws, level) == pytest.approx((-end, end), abs=1e-12)

    # The 5 % and 95 % quantiles of these draws are -0.9 and 0.9.
    @pytest.mark.parametrize(
        ("shift", "margin", "same"),
        [(0.0, 0.91, True), (0.0, 0.89, False), (0.05, 0.91, False), (-0.05, 0.91, False), (0.05, 0.96, True)],
    )
    def test_equivalence_needs_both_sides_within_the_margin(self, shift, margin, same):
        assert statistics.equivalent(self.draws + shift, margin) is same

    def test_equivalence_is_harder_at_a_higher_level(self):
        assert statistics.equivalent(self.draws, 0.92, level=0.95)
        assert not statistics.equivalent(self.draws, 0.92, level=0.99)

    def test_no_significant_difference_is_not_equivalence(self):
        assert not statistics.equivalent(torch.tensor([-3.0, 0.0, 3.0]), 1.0)

    @pytest.mark.parametrize("margin", [0.0, -0.1])
    def test_equivalence_without_a_margin_is_refused(self, margin):
        with pytest.raises(ValueError, match=f"margin must be positive, got {margin}"):
            statistics.equivalent(self.draws, margin)


class TestAuroc:
    @given(
        st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2).filter(lambda s: len({p for _, p in s}) == 2)
    )
    @thorough
    def test_is_the_share_of_pairs_won_with_half_for_ties(self, scored):
        pairs = product([s for s, p in scored if p], [s for s, p in scored if not p])
        won = [1.0 if win > loss else 0.5 if win == loss else 0.0 for win, loss in pairs]
        scores, positive = torch.tensor([float(s) for s, _ in scored]), torch.tensor([p for _, p in scored])
        assert statistics.auroc(scores, positive) == pytest.approx(sum(won) / len(won), abs=1e-12)
        assert statistics.auroc(-scores, positive) == pytest.approx(1 - sum(won) / len(won), abs=1e-12)

    def test_ranks_infinities(self):
        scores = torch.tensor([math.inf, 1.0, -math.inf])
        assert statistics.auroc(scores, torch.tensor([True, False, False])) == 1

    @pytest.mark.parametrize("positive", [True, False])
    def test_of_one_kind_only_is_refused(self, positive):
        with pytest.raises(ValueError, match="one positive and one negative"):
            statistics.auroc(torch.ones(3), torch.full((3,), positive))

    def test_refuses_a_score_that_is_no_number(self):
        with pytest.raises(ValueError, match="NaN"):
            statistics.auroc(torch.tensor([1.0, math.nan]), torch.tensor([True, False]))
