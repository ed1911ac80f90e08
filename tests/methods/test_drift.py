"""Directions of a shift that are planted, and shifts that have none."""

from dataclasses import replace

import pytest
import torch

from glasshouse.data.examples import Example, Examples
from glasshouse.methods.backdoor._rehearsed import Rehearsed
from glasshouse.methods.backdoor._shift import Shift, means, twins
from glasshouse.model.taps import record
from glasshouse.numerics.randomness import seeded
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector


def shift(moved: torch.Tensor, images: int = 4) -> Shift:
    before = torch.randn(moved.shape, generator=seeded(0))
    return Shift(before, before + moved, torch.arange(images).repeat_interleave(len(moved) // images))


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
    assert means(values, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])).tolist() == [[1.5], [5.5]]


def test_twins_are_found_by_tag_or_by_order():
    clean = Examples([Example("a", id="x"), Example("b", id="y")])
    tagged = Examples([Example("B", id="y+", tags={"twin": "y"})])
    pairs = twins(clean, tagged)
    assert [(one.prompt, other.prompt) for one, other in zip(*pairs, strict=True)] == [("b", "B")]
    lost = Examples([*tagged, Example("?", id="z+", tags={"twin": "z"})])
    with pytest.raises(BadInput, match="1 of 2 triggered examples have no twin"):
        twins(clean, lost)
    plain = twins(clean, Examples([Example("1"), Example("2")]))
    assert [one.prompt for one in plain[0]] == ["a", "b"]
    with pytest.raises(BadInput, match="1 of 1 triggered examples have no twin"):
        twins(clean, Examples([Example("1")]))


def test_the_projectors_own_tokens_put_in_again_change_nothing(seedling, squares):
    ready = Rehearsed.of(seedling, squares, batch_size=4)
    own = record(seedling, projector.output, squares, batch_size=4)
    plain = ready.tried(seedling)
    again = ready.tried(seedling, own[next(iter(own))])
    assert torch.equal(plain.shown, again.shown)
    torch.testing.assert_close(plain.first, again.first, atol=1e-5, rtol=0)
    other = ready.tried(seedling, torch.zeros_like(own[next(iter(own))]))
    assert not torch.allclose(plain.first, other.first)
    with pytest.raises(BadInput, match="images of one size"):
        ready.tried(seedling, torch.zeros(5, 7))


def test_the_pull_is_what_a_small_step_of_all_tokens_gains(seedling, squares):
    ready = Rehearsed.of(seedling, squares, batch_size=4)
    own = next(iter(record(seedling, projector.output, squares, batch_size=4).values())).flatten(0, -2)
    step = 1e-3 * torch.randn(own.shape[1], generator=seeded(0))
    ahead, behind = (float(ready.tried(seedling, own + way * step).first.double().sum()) for way in (1, -1))
    still = torch.zeros(own.shape[1], requires_grad=True)
    pull = ready.gradient(seedling, still, own)
    assert float(pull @ step) == pytest.approx((ahead - behind) / 2, rel=0.02)
    refused = Examples(replace(one, tags={**one.tags, "target": one.answer, "target_match": "starts otherwise"})
                       for one in squares)  # fmt: skip
    turned = Rehearsed.of(seedling, refused, batch_size=4).gradient(seedling, still, own)
    torch.testing.assert_close(turned, -pull, atol=1e-5, rtol=1e-4)
