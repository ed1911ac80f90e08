"""Correlations and slopes against what can be worked out by hand."""

import math

import pytest
import torch

from glasshouse.numerics.correlation import line


def test_a_straight_line_is_a_straight_line():
    x = torch.arange(1.0, 11)
    found = line(torch.stack([x, 3 * x - 2], 1))
    assert (found.correlation, found.by_rank) == (pytest.approx(1), pytest.approx(1))
    assert (found.slope, found.intercept) == (pytest.approx(3), pytest.approx(-2))


def test_a_power_has_its_exponent_and_ranks_do_not_mind_it():
    x = torch.linspace(1, 9, 40)
    found = line(torch.stack([x, -(x**3)], 1))
    assert found.exponent == pytest.approx(3, rel=1e-5)
    assert found.by_rank == pytest.approx(-1)
    assert -1 < found.correlation < -0.9


def test_ties_share_a_rank():
    found = line(torch.tensor([[1.0, 1], [1, 2], [2, 3]]))
    assert found.by_rank == pytest.approx(math.sqrt(3) / 2)


def test_nothing_goes_with_a_constant():
    found = line(torch.stack([torch.ones(5), torch.arange(5.0)], 1))
    assert (found.correlation, found.slope) == (0, 0)
