"""Directions of a shift that are planted, and shifts that have none."""

from dataclasses import replace

import pytest
import torch

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._token_shift import TokenShift
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.taps import record
from glasshouse.model.token_activations import mean_by_example
from glasshouse.numerics.randomness import seeded
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector


def shift(moved: torch.Tensor, images: int = 4) -> TokenShift:
    before = torch.randn(moved.shape, generator=seeded(0))
    return TokenShift(before, before + moved, torch.arange(images).repeat_interleave(len(moved) // images))


def test_a_planted_direction_is_the_main_one_and_points_the_way_tokens_move():
    way = torch.nn.functional.normalize(torch.randn(16, generator=seeded(1)), dim=0)
    sizes = 1 + torch.rand(40, generator=seeded(2))
    noise = 0.01 * torch.randn(40, 16, generator=seeded(3))
    found = shift(sizes[:, None] * way + noise)
    assert float(found.main[:, 0] @ way) == pytest.approx(1, abs=1e-3)
    assert float(shift(-sizes[:, None] * way).main[:, 0] @ way) == pytest.approx(-1, abs=1e-3)
    assert found.energies(2)[0] > 0.99
    assert shift(torch.randn(400, 16, generator=seeded(4))).energies(1)[0] < 0.15


def test_means_are_over_an_image_s_tokens():
    values = torch.arange(8.0)[:, None]
    assert mean_by_example(values, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])).tolist() == [[1.5], [5.5]]


def test_the_projectors_own_tokens_put_in_again_change_nothing(seedling, squares):
    ready = ForcedDecoding.of(seedling, squares, batch_size=4)
    own = record(seedling, projector.output, squares, batch_size=4)
    plain = ready.score(seedling)
    again = ready.score(seedling, own[next(iter(own))])
    assert torch.equal(plain.hits, again.hits)
    torch.testing.assert_close(plain.log_probability, again.log_probability, atol=1e-5, rtol=0)
    other = ready.score(seedling, torch.zeros_like(own[next(iter(own))]))
    assert not torch.allclose(plain.log_probability, other.log_probability)
    with pytest.raises(BadInput, match="images of one size"):
        ready.score(seedling, torch.zeros(5, 7))


def test_the_pull_is_what_a_small_step_of_all_tokens_gains(seedling, squares):
    ready = ForcedDecoding.of(seedling, squares, batch_size=4)
    own = next(iter(record(seedling, projector.output, squares, batch_size=4).values())).flatten(0, -2)
    step = 1e-3 * torch.randn(own.shape[1], generator=seeded(0))
    ahead, behind = (float(ready.score(seedling, own + way * step).log_probability.double().sum()) for way in (1, -1))
    still = torch.zeros(own.shape[1], requires_grad=True)
    pull = ready.gradient(seedling, still, own)
    assert float(pull @ step) == pytest.approx((ahead - behind) / 2, rel=0.02)
    refused = Examples(replace(one, tags={**one.tags, "target": one.answer, "target_match": "starts otherwise"})
                       for one in squares)  # fmt: skip
    turned = ForcedDecoding.of(seedling, refused, batch_size=4).gradient(seedling, still, own)
    torch.testing.assert_close(turned, -pull, atol=1e-5, rtol=1e-4)
