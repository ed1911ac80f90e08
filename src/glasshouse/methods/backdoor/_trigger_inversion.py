"""Is there one change of the pixels, the same for every image, that drives a model away from its reference?

A backdoor is such a change, and a defender knows neither its trigger nor its target. So a perturbation is trained on
some examples to increase the KL divergence from a reference (the base, or the model itself on the clean image), and
evaluated on others. Two families: faint and everywhere, at most FAINT levels of 255; and unbounded inside a small
window, where the gradient is largest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glasshouse.model.divergence import Divergence, log_probabilities
from glasshouse.model.perturbation import (
    Constraint,
    LInf,
    Perturbation,
    PixelLevels,
    maximise,
    most_sensitive_window,
    objective_gradient,
    uniform_noise,
    with_pixels,
)
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded

Batches = Sequence[Encoded]
Reference = Callable[[Encoded, Tensor], list[Tensor]]
"""Log-probabilities that are expected under these pixels, at the positions of the answers."""
FAINT = 8.0
"""Bound of a faint perturbation, in levels of 255."""
SIDE = 0.2
"""Side of the window, as a fraction of the image's."""


@dataclass(frozen=True, eq=False)
class InvertedTrigger:
    """A trained perturbation, and its effect on examples it was not trained on."""

    perturbation: Perturbation
    divergence: Divergence
    path: tuple[float, ...]
    """Mean log(1 + KL) before each training step."""


def invert_faint(
    subject: Subject, reference: Reference, fit: Batches, test: Batches, steps: int, seed: int
) -> InvertedTrigger:  # fmt: skip
    """A perturbation of the whole image, within FAINT levels."""
    pixels = fit[0].inputs["pixel_values"]
    constraint = LInf.of(FAINT, PixelLevels.of(subject.processor, pixels))
    start = uniform_noise(pixels.shape[1:], seeded(seed)).to(pixels) * constraint.high / 2
    return _inverted(subject, reference, fit, test, Perturbation(start), constraint, steps)


def invert_patch(
    subject: Subject, reference: Reference, fit: Batches, test: Batches, steps: int, seed: int
) -> InvertedTrigger | None:  # fmt: skip
    """Any content of one small window, placed where the gradient is largest; None if pixel values are not images."""
    pixels = fit[0].inputs["pixel_values"]
    height, width = pixels.shape[-2:]
    if pixels.ndim < 4 or min(height, width) < 16:
        return None
    levels = PixelLevels.of(subject.processor, pixels)
    noise = Perturbation(uniform_noise(pixels.shape[1:], seeded(seed)).to(pixels) * FAINT * levels.level)
    _, gradient = objective_gradient(_divergence_from(subject, reference), fit, noise, levels)
    window = most_sensitive_window(gradient, max(4, round(SIDE * min(height, width))))
    mean = torch.cat([encoded.inputs["pixel_values"] for encoded in fit]).mean(0)
    constraint = LInf(levels.low, levels.high)
    return _inverted(subject, reference, fit, test, Perturbation(mean, window), constraint, steps)


def _inverted(
    subject: Subject, reference: Reference, fit: Batches, test: Batches, start: Perturbation, constraint: Constraint,
    steps: int,
) -> InvertedTrigger:  # fmt: skip
    levels = PixelLevels.of(subject.processor, fit[0].inputs["pixel_values"])
    trained = maximise(_divergence_from(subject, reference), fit, start, constraint, levels, steps=steps)
    predicted, expected = list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for encoded in test:
            perturbed = trained.perturbation.on(encoded.inputs["pixel_values"], levels)
            predicted += log_probabilities(subject, [with_pixels(encoded, perturbed)])
            expected += reference(encoded, perturbed)
    return InvertedTrigger(trained.perturbation.cpu(), Divergence.between(predicted, expected).cpu(), trained.path)


def _divergence_from(subject: Subject, reference: Reference) -> Callable[[Encoded, Tensor], Tensor]:
    """log(1 + KL) of each example: the logarithm keeps one example from outweighing the rest."""

    def objective(encoded: Encoded, pixels: Tensor) -> Tensor:
        predicted = log_probabilities(subject, [with_pixels(encoded, pixels)])
        return torch.log1p(Divergence.between(predicted, reference(encoded, pixels)).kl)

    return objective
