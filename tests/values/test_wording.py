"""Numbers in headlines: two significant digits, intervals that cannot be misread."""

import math

import pytest

from glasshouse.values.intervals import Interval
from glasshouse.values.wording import counted, number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.954, "95%"),
        (1.0, "100%"),
        (0.0, "0%"),
        (0.0123, "1.2%"),
        (0.0996, "10%"),
        (-0.02, "-2%"),
        (math.nan, "no value"),
    ],
)
def test_percentages_have_two_digits(value: float, text: str):
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.4234, "0.42"), (12.3, "12"), (1234.5, "1,234"), (0.9994, "0.999"), (math.inf, "inf")]
)
def test_numbers_have_two_digits(value: float, text: str):
    assert number(value) == text


def test_intervals_follow_their_value():
    assert percent(Interval(0.95, 0.87, 0.98)) == "95% (87-98%)"
    assert percent(Interval(0.01, -0.02, 0.04)) == "1% (-2 to 4%)"
    assert number(Interval(0.42, 0.35, 0.51)) == "0.42 (0.35-0.51)"


def test_counts_agree_with_their_noun():
    assert [counted(1, "neuron"), counted(1200, "neuron"), counted(2, "axis", "axes")] == [
        "1 neuron", "1,200 neurons", "2 axes",
    ]  # fmt: skip
