"""Spectra against full decompositions in float64, ranks against matrices whose rank is known."""

import math

import pytest
import torch

from glasshouse.numerics import spectra
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import (
    Ranks,
    gaussian_values,
    leading,
    principal,
    rotated,
    rounding_floor,
    singular_values,
)


def matrix(out, inner, falling=0.0, seed=0):
    values = torch.arange(1, min(out, inner) + 1, dtype=torch.float64) ** -falling
    return rotated(values, out, inner, seed), values


@pytest.mark.parametrize(("out", "inner"), [(30, 50), (50, 30), (40, 40)])
def test_all_singular_values_are_those_of_a_full_decomposition(out, inner):
    made, values = matrix(out, inner, 1.0)
    torch.testing.assert_close(singular_values(made), values, atol=1e-6, rtol=1e-5)
    exact = torch.linalg.svdvals(made.double())
    torch.testing.assert_close(singular_values(made), exact, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("falling", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(("out", "inner"), [(400, 300), (300, 700)])
def test_the_leading_ones_are_exact_to_a_thousandth_without_the_rest(out, inner, falling):
    made, values = matrix(out, inner, falling)
    left, found, right = leading(made, 5)
    torch.testing.assert_close(found.double(), values[:5], rtol=1e-3, atol=0)
    torch.testing.assert_close(left.T @ left, torch.eye(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(right.T @ right, torch.eye(5), atol=1e-3, rtol=0)
    if falling >= 0.5:
        torch.testing.assert_close(left * found, made @ right, atol=2e-3, rtol=0)
    assert (left.gather(0, left.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_leading_part_is_the_best_of_its_rank():
    made, values = matrix(300, 260, 1.0)
    left, found, right = leading(made, 4)
    rest = made - (left * found) @ right.T
    assert float(rest.square().sum()) == pytest.approx(float(values[4:].square().sum()), rel=1e-3)


def test_ranks_of_a_projection_are_its_dimension():
    ranks = Ranks.of(torch.cat([torch.full((7,), 3.0), torch.zeros(13)]))
    for rank in (ranks.stable, ranks.entropic, ranks.participation):
        assert rank == pytest.approx(7, rel=1e-9)
    assert (ranks.k90, ranks.numerical) == (7, 7)
    assert ranks.energies[0] == pytest.approx(1 / 7)
    assert ranks.energies[-1] == pytest.approx(1)
    assert ranks.norm == pytest.approx(3 * math.sqrt(7))


def test_ranks_of_a_known_spectrum():
    ranks = Ranks.of(torch.tensor([2.0, 1.0, 1.0]), floor=1.5)
    assert ranks.stable == pytest.approx(6 / 4)
    assert ranks.entropic == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))
    assert ranks.participation == pytest.approx(36 / 18)
    assert (ranks.k90, ranks.numerical) == (3, 1)
    assert Ranks.of(torch.zeros(4)) == Ranks(0.0, 0.0, 0.0, 0, 0, (0.0,) * 6, 0.0)


def test_nine_tenths_exactly_count_as_reached():
    assert Ranks.of(torch.tensor([3.0, 1.0])).k90 == 1
    assert Ranks.of(torch.tensor([2.99, 1.0])).k90 == 2


def test_principal_angles_between_planes():
    axes = torch.eye(4)
    tilted = torch.stack([axes[0], math.cos(0.3) * axes[1] + math.sin(0.3) * axes[2]], 1)
    cosines, turned = principal(tilted, axes[:, :2])
    torch.testing.assert_close(cosines, torch.tensor([1.0, math.cos(0.3)]))
    torch.testing.assert_close(turned[:, 1].abs(), tilted[:, 1].abs(), atol=1e-6, rtol=0)
    cosines, turned = principal(axes[:, [0, 3]], axes[:, :1])
    torch.testing.assert_close(cosines, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(turned[:, 1].abs(), axes[:, 3])


def test_a_rotation_keeps_the_values_and_forgets_the_directions():
    values = torch.tensor([3.0, 2.0, 1.0])
    one, other = rotated(values, 60, 40, 0), rotated(values, 60, 40, 1)
    torch.testing.assert_close(singular_values(one)[:3].float(), values, atol=1e-5, rtol=0)
    cosines, _ = principal(leading(one, 3)[2], leading(other, 3)[2])
    assert cosines.max() < 0.7
    assert torch.equal(one, rotated(values, 60, 40, 0))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_what_rounding_gives_lies_below_its_floor_and_not_far(kind):
    weight = torch.randn(200, 120, generator=seeded(0)) * 0.05
    rounded = weight.to(kind).float()
    floor = rounding_floor(rounded)
    rounding = float(torch.linalg.matrix_norm(rounded - weight, 2))
    assert 0.3 * floor < rounding < floor
    assert rounding_floor(weight) < 1e-2 * floor


@pytest.mark.parametrize(("out", "inner"), [(300, 600), (500, 500), (600, 200)])
def test_gaussian_values_are_those_of_gaussian_matrices(out: int, inner: int):
    drawn = torch.randn(out, inner, generator=seeded(3))
    found, expected = singular_values(drawn), gaussian_values(out, inner, float(drawn.norm()))
    assert float(expected.norm()) == pytest.approx(float(drawn.norm()))
    torch.testing.assert_close(found, expected, atol=0.02 * float(found[0]), rtol=0)
    one, two = Ranks.of(found), Ranks.of(expected)
    assert two.entropic == pytest.approx(one.entropic, rel=2e-3)
    assert two.participation == pytest.approx(one.participation, rel=1e-2)


def test_wide_matrices_are_as_exact_as_their_use_needs(monkeypatch: pytest.MonkeyPatch):
    values = torch.arange(1, 301).double() ** -1.0
    matrix = rotated(values, 300, 400, 0)
    exact = Ranks.of(singular_values(matrix))
    monkeypatch.setattr(spectra, "WIDE", 100)
    quick = singular_values(matrix)
    torch.testing.assert_close(quick, values, rtol=1e-3, atol=0)
    assert Ranks.of(quick).entropic == pytest.approx(exact.entropic, rel=1e-4)
