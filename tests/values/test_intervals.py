"""Numbers with their doubt: made by the statistic they name, compared by their ends."""

import math

import pytest
import torch

from glasshouse.numerics import statistics
from glasshouse.numerics.randomness import seeded
from glasshouse.values.codec import pack, unpack
from glasshouse.values.intervals import Interval
from glasshouse.values.wording import number, percent

LOST = torch.tensor([1, 1, 1, 0], dtype=torch.bool), torch.tensor([1, 0, 0, 1], dtype=torch.bool)


def test_rates():
    assert Interval.rate(8, 10) == Interval(0.8, *statistics.wilson(8, 10), 10, 0.95, "Wilson", percent=True)
    exact = Interval(0.8, *statistics.clopper_pearson(8, 10, 0.9), 10, 0.9, "Clopper-Pearson", percent=True)
    assert Interval.exact_rate(8, 10, 0.9) == exact


def test_a_loss_is_of_the_same_trials():
    before, after = torch.tensor([1, 1, 1, 0, 0], dtype=torch.bool), torch.tensor([1, 0, 0, 1, 0], dtype=torch.bool)
    lost = Interval.loss(before, after)
    assert lost == Interval((2 - 1) / 5, *statistics.paired(1, 2, 1, 1), 5, 0.95, "Newcombe", percent=True)
    assert Interval.loss(before, before).value == 0


@pytest.mark.parametrize("rate", [Interval.rate, Interval.exact_rate])
def test_a_rate_of_no_trials_has_no_value_and_every_bound(rate):
    nothing = rate(0, 0)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high, nothing.n) == (0, 1, 0)


class TestBootstrap:
    sample = torch.randn(60, generator=seeded(0))

    def test_is_the_middle_of_seeded_draws_about_the_sample(self):
        made = Interval.bootstrap(torch.mean, self.sample, seed=5, draws=300, level=0.8)
        draws = statistics.bootstrap(torch.mean, self.sample, seeded(5), draws=300)
        low, high = statistics.quantiles(draws, 0.8)
        assert made == Interval(float(self.sample.mean()), low, high, 60, 0.8, "bootstrap")

    def test_of_a_mean_is_the_same_at_once(self):
        at_once, drawn = (
            Interval.mean(self.sample, seed=5, draws=300, level=0.8),
            Interval.bootstrap(torch.mean, self.sample, seed=5, draws=300, level=0.8),
        )
        ends = [(each.value, each.low, each.high) for each in (at_once, drawn)]
        assert ends[0] == pytest.approx(ends[1], abs=1e-6)
        assert (at_once.n, at_once.level, at_once.how) == (60, 0.8, "bootstrap")

    def test_groups_are_what_is_counted(self):
        made = Interval.bootstrap(torch.mean, self.sample, seed=5, groups=torch.arange(60) % 4)
        assert made.n == 4
        assert made.value == float(self.sample.mean())

    def test_of_a_statistic_other_than_the_mean(self):
        made = Interval.bootstrap(lambda pairs: (pairs[:, 0] - pairs[:, 1]).abs().max(), torch.eye(2), seed=0)
        assert (made.value, made.low, made.high) == (1, 1, 1)


def test_a_null_band_has_its_median_inside():
    band = Interval.of(torch.tensor([3.0, 0.0, 1.0, 2.0]), 0.5)
    assert (band.value, band.low, band.high, band.n, band.level) == (1.5, 0.75, 2.25, 4, 0.5)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval.rate(8, 10), "80% (49-94%) n=10"),
        (Interval.rate(1439, 1440), "99.9% (99.6-99.99%) n=1,440"),
        (Interval(1.5, -math.inf, math.inf, 1), "1.5 (no bounds) n=1"),
        (Interval(0.42, 0.35, 0.51), "0.42 (0.35-0.51)"),
        (Interval.rate(0, 0), "no value (0-100%) n=0"),
    ],
)
def test_text(interval: Interval, text: str):
    assert str(interval) == text


def test_a_headline_and_a_table_show_the_same_number():
    for rate in (Interval.rate(61, 64), Interval.rate(0, 64), Interval.rate(1439, 1440), Interval.loss(*LOST)):
        assert str(rate) == f"{percent(rate)} n={rate.n:,}"
    mean = Interval(0.0823, 0.0521, 0.1234, 8)
    assert str(mean) == f"{number(mean)} n=8"


@pytest.mark.parametrize(
    ("low", "high", "overlaps"),
    [(2.0, 3.0, True), (2.1, 3.0, False), (0.0, 1.0, True), (0.0, 0.9, False), (1.2, 1.3, True)],
)
def test_overlap_is_mutual_and_includes_the_ends(low, high, overlaps):
    one, two = Interval(1.5, 1.0, 2.0), Interval(low, low, high)
    assert (one.overlaps(two), two.overlaps(one)) == (overlaps, overlaps)


@pytest.mark.parametrize(
    ("threshold", "above", "below"),
    [(0.9, True, False), (1.0, False, False), (1.5, False, False), (2.0, False, False), (2.1, False, True)],
)
def test_above_and_below_need_the_whole_interval(threshold, above, below):
    interval = Interval(1.5, 1.0, 2.0)
    assert (interval.above(threshold), interval.below(threshold)) == (above, below)


def test_comes_back_from_disk():
    assert unpack(Interval, *pack(Interval.rate(3, 7))) == Interval.rate(3, 7)
