"""Log-odds that are known, and cases that say nothing."""

import pytest
import torch

from glasshouse.numerics.logistic import Logistic, chances
from glasshouse.numerics.randomness import seeded


def drawn(n: int, weight: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 1, generator=seeded(seed))
    odds = torch.sigmoid(weight * x[:, 0] - 0.5)
    return x, torch.rand(n, generator=seeded(seed + 1)) < odds


def test_known_log_odds_are_found():
    x, truth = drawn(20000, 2.0, 0)
    found = Logistic.fit(x, truth)
    assert float(found.weights[0] / found.spread[0]) == pytest.approx(2.0, rel=0.05)
    odds = float(truth.double().mean() / (~truth).double().mean())  # both kinds weigh the same, so these are taken out
    assert found.chance(torch.tensor([0.25])) == pytest.approx(1 / (1 + odds), abs=0.02)


def test_the_score_is_stationary():
    x, truth = drawn(40, 1.0, 3)
    found = Logistic.fit(x, truth, ridge=0.5)
    scaled = (x.double() - found.mean) / found.spread
    chance = torch.sigmoid(scaled @ found.weights + found.bias)
    share = len(truth) / torch.where(truth, 2 * truth.sum(), 2 * (~truth).sum()).double()
    torch.testing.assert_close(scaled.T @ (share * (truth.double() - chance)), 0.5 * found.weights, atol=1e-8, rtol=0)


def test_more_cases_of_one_kind_do_not_move_it():
    x, truth = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([False, True, False, True])
    false = ~truth
    more = Logistic.fit(torch.cat([x, x[false]]), torch.cat([truth, truth[false]]), ridge=0.0)
    plain = Logistic.fit(x, truth, ridge=0.0)
    assert 0.5 < plain.chance(torch.tensor([2.5])) < 0.9
    assert more.chance(torch.tensor([2.5])) == pytest.approx(plain.chance(torch.tensor([2.5])), abs=1e-6)


def test_separated_cases_stay_finite_and_scale_does_not_matter():
    x = torch.tensor([[1.0], [2.0], [8.0], [9.0]])
    truth = torch.tensor([False, False, True, True])
    found = Logistic.fit(x, truth)
    assert 0.5 < found.chance(torch.tensor([9.0])) < 1
    again = Logistic.fit(1000 * x + 5, truth)
    assert again.chance(torch.tensor([9005.0])) == pytest.approx(found.chance(torch.tensor([9.0])))


def test_doubt_is_wide_where_cases_say_nothing_and_narrow_where_they_do():
    noise, truth = torch.randn(24, 1, generator=seeded(5)), torch.arange(24) % 2 == 0
    wide = chances(noise, truth, torch.tensor([0.0]), seed=0)
    telling = noise * 0.1 + truth.float()[:, None] * 3
    high, low = (chances(telling, truth, torch.tensor([at]), seed=0) for at in (3.0, 0.0))
    assert float(low.max()) < 0.3 < 0.7 < float(high.min())
    assert abs(float(wide.median()) - 0.5) < 0.2
    assert torch.equal(high, chances(telling, truth, torch.tensor([3.0]), seed=0))
    with pytest.raises(ValueError, match="both kinds"):
        Logistic.fit(noise, torch.ones(24).bool())
