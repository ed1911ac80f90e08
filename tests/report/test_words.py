"""A number has two significant digits; a share close to one has up to six."""

import math

import pytest

from glasshouse.report.words import cell
from sample_findings import INTERVAL


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.12"),
        (3.0, "3"),
        (3.14159, "3.1"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (2.5e9, "2.5e+09"),
        (1.2e-5, "1.2e-05"),
        (0.9994, "0.999"),
        (-0.999, "-0.999"),
        (0.99999999, "1"),
        (math.nan, "no value"),
        (-math.inf, "-inf"),
        (7, "7"),
        (True, "yes"),
        (False, "no"),
        (None, ""),
        ("half", "half"),
        (INTERVAL, str(INTERVAL)),
    ],
)
def test_a_cell(value: object, text: str):
    assert cell(value) == text
