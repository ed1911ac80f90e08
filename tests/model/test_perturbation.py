"""A perturbation stays within its bounds, moves along the gradient, and finds the optimum where that is known."""

import pytest
import torch

from glasshouse.model.layout import PromptLayout
from glasshouse.model.perturbation import (
    L2,
    LInf,
    Perturbation,
    PixelLevels,
    channel_mean_and_std,
    maximise,
    most_sensitive_window,
    objective_gradient,
    pixel_batches,
    uniform_noise,
    with_pixels,
)
from glasshouse.model.prompts import Encoded
from glasshouse.numerics.randomness import seeded

SHAPE = (3, 6, 6)
WIDE = PixelLevels(torch.tensor(0.01).expand(3, 1, 1), torch.tensor(-9.0).expand(3, 1, 1),
                   torch.tensor(9.0).expand(3, 1, 1))  # fmt: skip


def batches(*sizes: int) -> list[Encoded]:
    """Images of zeros in batches of these sizes."""
    return [
        Encoded(
            {"pixel_values": torch.zeros(size, *SHAPE)},
            PromptLayout(torch.zeros(size, dtype=torch.long), (1,) * size, True),
        )
        for size in sizes
    ]


def linear(weight: torch.Tensor):
    """The objective whose best perturbation is known: the product with a fixed direction."""
    return lambda encoded, pixels: (pixels * weight).flatten(1).sum(1)


DIRECTION = torch.randn(SHAPE, generator=seeded(0))


def test_l_inf_reaches_the_best_corner_and_never_leaves_the_box():
    constraint = LInf.of(8, WIDE)
    trained = maximise(linear(DIRECTION), batches(2, 3), Perturbation(torch.zeros(SHAPE)), constraint, WIDE, steps=30)
    torch.testing.assert_close(trained.perturbation.change, 0.08 * DIRECTION.sign())
    assert len(trained.path) == 30
    assert trained.path[0] == 0.0 < trained.path[1] < trained.path[-1]
    assert bool((constraint.project(torch.full(SHAPE, 5.0)) == 0.08).all())


def test_l2_reaches_the_best_point_of_the_sphere_in_levels():
    """Channels of different scale: the norm is taken in levels, so the optimum is too."""
    level = torch.tensor([0.01, 0.02, 0.05]).view(3, 1, 1)
    levels = PixelLevels(level, WIDE.low, WIDE.high)
    constraint = L2.of(20, levels)
    trained = maximise(linear(DIRECTION), batches(4), Perturbation(torch.zeros(SHAPE)), constraint, levels, steps=60)
    in_levels = trained.perturbation.change / level
    assert float(in_levels.norm()) == pytest.approx(20, rel=1e-4)
    best = DIRECTION * level
    torch.testing.assert_close(in_levels, 20 * best / best.norm(), rtol=1e-3, atol=1e-3)


def test_l2_per_example_gives_every_image_a_norm_of_its_own():
    constraint = L2.of(3, WIDE, per_example=True)
    changes = torch.randn(4, *SHAPE, generator=seeded(1)) * torch.tensor([1e-4, 1.0, 2.0, 3.0]).view(4, 1, 1, 1)
    projected = constraint.project(changes)
    norms = (projected / WIDE.level).flatten(1).norm(dim=1)
    assert torch.equal(projected[0], changes[0]), "inside the ball nothing moves"
    torch.testing.assert_close(norms[1:], torch.full((3,), 3.0))
    own = torch.randn(4, *SHAPE, generator=seeded(2))
    start = Perturbation(torch.zeros(4, *SHAPE))
    trained = maximise(linear(own), batches(4), start, constraint, WIDE, steps=60).perturbation.change
    cosines = torch.cosine_similarity(trained.flatten(1), own.flatten(1))
    assert bool((cosines > 0.999).all())


def test_the_gradient_is_the_mean_over_all_batches():
    weights = torch.arange(5.0)

    def objective(encoded, pixels):
        rows = weights[: len(pixels)] if len(pixels) == 2 else weights[2:]
        return rows * pixels.flatten(1).sum(1)

    value, gradient = objective_gradient(objective, batches(2, 3), Perturbation(torch.ones(SHAPE)), WIDE)
    assert value == pytest.approx(float(weights.mean()) * 108)
    torch.testing.assert_close(gradient, weights.mean().expand(SHAPE))


def test_a_window_is_replaced_and_nothing_else():
    window = torch.zeros(SHAPE, dtype=torch.bool)
    window[:, 2:4, 1:3] = True
    pixels = torch.randn(2, *SHAPE, generator=seeded(3))
    patched = Perturbation(torch.full(SHAPE, 0.5), window).on(pixels, WIDE)
    assert bool((patched[:, window] == 0.5).all())
    assert torch.equal(patched[:, ~window], pixels[:, ~window])


def test_the_most_sensitive_window_is_where_the_gradient_is():
    gradient = torch.zeros(SHAPE)
    gradient[1, 3:5, 2:4] = -2.0
    window = most_sensitive_window(gradient, 2)
    assert window.nonzero()[:, 1:].unique(dim=0).tolist() == [[3, 2], [3, 3], [4, 2], [4, 3]]


def test_every_channel_has_bounds_of_its_own(seedling):
    levels = PixelLevels.of(seedling.processor, torch.zeros(2, 3, 4, 4))
    mean, std = channel_mean_and_std(seedling.processor)
    white = ((1 - mean) / std).view(3, 1, 1)
    assert torch.equal(levels.high, white)
    saturated = Perturbation(torch.full((3, 4, 4), 99.0)).on(torch.zeros(1, 3, 4, 4), levels)
    assert torch.equal(saturated[0, :, 0, 0], white.flatten())
    assert PixelLevels.of(seedling.processor, torch.zeros(3, 8, 12)).high == white.max(), "patches have no channel axis"


def test_a_model_is_moved_through_its_pixels(seedling, squares):
    """The whole path on a model: the log-probability of the first answer token falls under a trained perturbation."""
    encoded = pixel_batches(seedling, squares, 3)
    levels = PixelLevels.of(seedling.processor, encoded[0].inputs["pixel_values"])

    def surprise(batch, pixels):
        logits = seedling.forward(with_pixels(batch, pixels)).logits
        counts = batch.layout.answers.tolist()
        first = [logits[row, -count - 1].log_softmax(-1)[batch.inputs["input_ids"][row, -count]]
                 for row, count in enumerate(counts)]  # fmt: skip
        return -torch.stack(first)

    noise = uniform_noise(encoded[0].inputs["pixel_values"].shape[1:], seeded(0)) * levels.level
    trained = maximise(surprise, encoded, Perturbation(noise), LInf.of(16, levels), levels, steps=6)
    after, _ = objective_gradient(surprise, encoded, trained.perturbation, levels)
    assert after > trained.path[0]
