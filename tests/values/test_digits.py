"""Two significant digits on one scale; more where two would hide something."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glasshouse.values.digits import percentage, plain, spread


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.95, 0.87, 0.98), "95% (87-98%)"),
        ((0.0, 0.0, 0.0566), "0% (0-5.7%)"),
        ((0.03125, 0.00864, 0.107), "3.1% (0.9-11%)"),
        ((0.9943, 0.974, 0.9993), "99% (97-99.9%)"),
        ((1.0, 0.94, 1.0), "100% (94-100%)"),
        ((0.01, -0.02, 0.04), "1% (-2 to 4%)"),
        ((0.25, 0.25, 0.25), "25%"),
        ((math.nan, 0.0, 1.0), "no value (0-100%)"),
    ],
)
def test_a_rate_is_a_percentage(numbers: tuple[float, float, float], text: str):
    assert spread(*numbers, percent=True) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0823, 0.0521, 0.1234), "0.082 (0.052-0.12)"),
        ((10.123, 10.120, 10.126), "10.123 (10.120-10.126)"),
        ((1.234e-5, -2e-6, 2.5e-5), "1.2e-05 (-0.2e-05 to 2.5e-05)"),
        ((1234567.0, 1.2e6, 1.3e6), "1.2e+06 (1.2e+06 to 1.3e+06)"),
        ((1234.5, 1100.0, 1300.0), "1,234 (1,100-1,300)"),
        ((2.0, -math.inf, 5.0), "2 (-inf to 5)"),
        ((1.5, -math.inf, math.inf), "1.5 (no bounds)"),
        ((0.0, 0.0, 0.0), "0"),
    ],
)
def test_an_interval_has_one_scale(numbers: tuple[float, float, float], text: str):
    assert spread(*numbers) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.99994, "99.99%"), (0.99995, "99.995%"), (1e-7, "1.0e-05%"), (0.5, "50%")]
)
def test_almost_all_is_not_all(value: float, text: str):
    assert percentage(value) == text


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_a_share_of_less_than_all_never_reads_as_all_or_none(n: int, part: float):
    count = min(n, int(part * (n + 1)))
    text = percentage(count / n)
    assert (text == "100%") == (count == n)
    assert (text == "0%") == (count == 0)


@given(st.floats(0.0001, 0.99))
def test_two_digits_lose_at_most_five_percent(value: float):
    for written in (float(plain(value)), float(percentage(value).rstrip("%")) / 100):
        assert written == pytest.approx(value, rel=0.051)
