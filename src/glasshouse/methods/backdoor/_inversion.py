"""Is there one change of the picture, the same for every picture, under which a model leaves its reference behind?

A backdoor is such a change, and whoever looks for it knows neither trigger nor target. So a perturbation is trained on
some examples to drive the model away from a reference (its base, or itself on the clean picture), and judged on others.
Two families: faint and everywhere, at most a few levels of 255; and strong in a small window, where a gradient says
that it would matter most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glasshouse.methods.backdoor._readings import Apart, read, with_pixels
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded

Batches = Sequence[Encoded]
Reference = Callable[[Encoded, Tensor], list[Tensor]]
"""What is expected under these pixels: log-probabilities at the places of the answers."""
FAINT = 8.0
"""Levels of 255 that a faint perturbation may reach."""
SIDE = 0.2
"""Of the window, as a share of the picture's."""


def mean_and_std(processor: Any) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """What a processor takes from each colour, and divides it by."""
    images = getattr(processor, "image_processor", processor)
    mean, std = (torch.tensor(getattr(images, name, None) or [0.5] * 3) for name in ("image_mean", "image_std"))
    return mean, std


@dataclass(frozen=True, eq=False)
class Levels:
    """How pixels of a picture become values of a processor, colour by colour."""

    level: Tensor
    """One level of 255."""
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, processor: Any, pixels: Float[Tensor, "..."]) -> "Levels":
        """For a batch of such pixel values; where they do not come colour by colour, what holds for all colours."""
        mean, std = mean_and_std(processor)
        level, low, high = (one.to(pixels) for one in (1 / 255 / std, -mean / std, (1 - mean) / std))
        if pixels.ndim > 3 and pixels.shape[-3] == len(mean):
            return cls(*(one.view(-1, 1, 1) for one in (level, low, high)))
        return cls(level.mean(), low.min(), high.max())


@dataclass(frozen=True, eq=False)
class Found:
    """A perturbation, and what it does on examples it was not trained on."""

    change: Float[Tensor, "..."]
    """What is added to the pixel values of every picture, on the CPU."""
    window: Bool[Tensor, "..."] | None
    """Where it replaces the picture; None where it is added everywhere."""
    apart: Apart
    path: tuple[float, ...]
    """Mean log(1 + KL) while it was trained."""

    def on(self, pixels: Tensor, scale: Levels) -> Tensor:
        return perturbed(pixels, self.change, self.window, scale)


def perturbed(pixels: Tensor, change: Tensor, window: Tensor | None, scale: Levels) -> Tensor:
    """The pictures with it: added, or in place of what the window covers."""
    made = pixels + change if window is None else torch.where(window, change.expand_as(pixels), pixels)
    return made.clamp(scale.low, scale.high)


def faint(
    subject: Subject, reference: Reference, fit: Batches, test: Batches, steps: int, seed: int
) -> Found:  # fmt: skip
    """Everywhere, within FAINT levels."""
    pixels = fit[0].inputs["pixel_values"]
    bound = FAINT * Levels.of(subject.processor, pixels).level
    start = (2 * torch.rand(pixels.shape[1:], generator=seeded(seed)) - 1).to(pixels) * bound / 2
    return _trained(subject, reference, fit, test, start, None, (-bound, bound), steps)


def windowed(
    subject: Subject, reference: Reference, fit: Batches, test: Batches, steps: int, seed: int
) -> Found | None:  # fmt: skip
    """Anything at all within one small window, where the gradient is largest; none for pixels that are no picture."""
    pixels = fit[0].inputs["pixel_values"]
    height, width = pixels.shape[-2:]
    if pixels.ndim < 4 or min(height, width) < 16:
        return None
    scale = Levels.of(subject.processor, pixels)
    noise = (2 * torch.rand(pixels.shape[1:], generator=seeded(seed)) - 1).to(pixels) * FAINT * scale.level
    _, slope = _slope(subject, reference, fit, noise, None, scale)
    side = max(4, round(SIDE * min(height, width)))
    energy = slope.abs().reshape(-1, height, width).sum(0)[None, None]
    sums = torch.nn.functional.avg_pool2d(energy, side, stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    window = torch.zeros(pixels.shape[1:], dtype=torch.bool, device=pixels.device)
    window[..., top : top + side, left : left + side] = True
    middle = torch.cat([encoded.inputs["pixel_values"] for encoded in fit]).mean(0)
    return _trained(subject, reference, fit, test, middle, window, (scale.low, scale.high), steps)


def _trained(
    subject: Subject, reference: Reference, fit: Batches, test: Batches, start: Tensor, window: Tensor | None,
    bounds: tuple[Tensor, Tensor], steps: int,
) -> Found:  # fmt: skip
    """Signed gradient steps with momentum, falling to nothing."""
    scale = Levels.of(subject.processor, fit[0].inputs["pixel_values"])
    change, path = start, list[float]()
    speed, width = torch.zeros_like(change), (bounds[1] - bounds[0]) / 2
    for step in range(steps):
        value, slope = _slope(subject, reference, fit, change, window, scale)
        path.append(value)
        speed = 0.8 * speed + slope / slope.abs().mean().clamp_min(1e-12)
        change = (change + 0.15 * width * (1 - step / steps) * speed.sign()).clamp(*bounds)
    ours, theirs = list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for encoded in test:
            shown = perturbed(encoded.inputs["pixel_values"], change, window, scale)
            ours += read(subject, with_pixels(encoded, shown))
            theirs += reference(encoded, shown)
    return Found(change.cpu(), None if window is None else window.cpu(), Apart.of(ours, theirs), tuple(path))


def _slope(
    subject: Subject, reference: Reference, fit: Batches, change: Tensor, window: Tensor | None, scale: Levels
) -> tuple[float, Tensor]:  # fmt: skip
    """Mean log(1 + KL) and its gradient: the logarithm keeps one example from outweighing the rest."""
    free, total = change.detach().requires_grad_(True), 0.0
    slope, count = torch.zeros_like(change), sum(len(encoded.known.images) for encoded in fit)
    for encoded in fit:
        with torch.enable_grad():
            shown = perturbed(encoded.inputs["pixel_values"], free, window, scale)
            found = Apart.of(read(subject, with_pixels(encoded, shown)), reference(encoded, shown))
            value = torch.log1p(found.divergence).sum() / count
            slope += torch.autograd.grad(value, free)[0]
        total += float(value.detach())
    return total, slope
