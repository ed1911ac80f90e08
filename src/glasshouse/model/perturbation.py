"""Which bounded change of the pixels moves a model most? Projected gradient ascent with momentum (PGD).

    batches = pixel_batches(subject, examples, batch_size)
    levels = PixelLevels.of(subject.processor, batches[0].inputs["pixel_values"])
    start = Perturbation(torch.zeros(batches[0].inputs["pixel_values"].shape[1:]))      # one change for all images
    trained = maximise(objective, batches, start, LInf.of(8, levels), levels, steps=20)
    trained.perturbation.on(pixels, levels)

`objective(encoded, pixels)` is one number per example, differentiable in the pixels. A change shaped like one example's
pixel values is universal, the same for every image; a change shaped like a whole batch, where there is only one, is
every example's own. Sizes are in levels of 255 before the processor's normalisation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glasshouse.data.examples import Example
from glasshouse.model.batching import portions
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput

Objective = Callable[[Encoded, Tensor], Float[Tensor, " examples"]]


def channel_mean_and_std(processor: Any) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """What a processor subtracts from each colour channel, and divides it by."""
    images = getattr(processor, "image_processor", processor)
    mean, std = (torch.tensor(getattr(images, name, None) or [0.5] * 3) for name in ("image_mean", "image_std"))
    return mean, std


@dataclass(frozen=True, eq=False)
class PixelLevels:
    """How a processor's pixel values relate to levels from 0 to 255, per colour channel."""

    level: Tensor
    """Size of one level of 255."""
    low: Tensor
    """Value of level 0."""
    high: Tensor
    """Value of level 255."""

    @classmethod
    def of(cls, processor: Any, pixels: Float[Tensor, "..."]) -> "PixelLevels":
        """For pixel values of this shape; where channels are not an axis of it, bounds that hold for all channels."""
        mean, std = channel_mean_and_std(processor)
        level, low, high = (value.to(pixels) for value in (1 / 255 / std, -mean / std, (1 - mean) / std))
        if pixels.ndim > 3 and pixels.shape[-3] == len(mean):
            return cls(*(value.view(-1, 1, 1) for value in (level, low, high)))
        return cls(level.mean(), low.min(), high.max())


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A change of pixel values."""

    change: Float[Tensor, "..."]
    """What is added to the pixels, or replaces them where there is a window."""
    window: Bool[Tensor, "..."] | None = None
    """Where the change replaces the pixels; None where it is added everywhere."""

    def on(self, pixels: Tensor, levels: PixelLevels) -> Tensor:
        """The perturbed pixels, kept between level 0 and level 255."""
        change = self.change.to(pixels)
        if self.window is None:
            return (pixels + change).clamp(levels.low, levels.high)
        window = self.window.to(pixels.device)
        return torch.where(window, change.expand_as(pixels), pixels).clamp(levels.low, levels.high)

    def cpu(self) -> "Perturbation":
        return Perturbation(self.change.detach().cpu(), None if self.window is None else self.window.cpu())


class Constraint(Protocol):
    """Which changes are allowed."""

    @property
    def half_width(self) -> Tensor:
        """Half the width of the set of allowed changes, of which a step is a fraction."""
        ...

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of unit size in the constraint's norm that gains most along a gradient."""
        ...

    def project(self, change: Tensor) -> Tensor:
        """The nearest allowed change."""
        ...


@dataclass(frozen=True, eq=False)
class LInf:
    """Each value of the change lies between `low` and `high`."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, radius: float, levels: PixelLevels) -> "LInf":
        """At most `radius` levels of 255."""
        return cls(-radius * levels.level, radius * levels.level)

    @property
    def half_width(self) -> Tensor:
        return (self.high - self.low) / 2

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, change: Tensor) -> Tensor:
        return change.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False)
class L2:
    """The change's Euclidean norm, in levels of 255, is at most `radius`."""

    radius: float
    level: Tensor
    per_example: bool = False
    """Whether the first axis of the change counts examples, each with a norm of its own."""

    @classmethod
    def of(cls, radius: float, levels: PixelLevels, *, per_example: bool = False) -> "L2":
        return cls(radius, levels.level, per_example)

    @property
    def half_width(self) -> Tensor:
        return self.radius * self.level

    def steepest(self, gradient: Tensor) -> Tensor:
        by_level = gradient * self.level  # the norm is taken in levels, so the gradient is too
        return by_level / self._norm(by_level).clamp_min(1e-30)

    def project(self, change: Tensor) -> Tensor:
        return change * (self.radius / self._norm(change / self.level).clamp_min(1e-30)).clamp_max(1)

    def _norm(self, values: Tensor) -> Tensor:
        axes = tuple(range(1 if self.per_example else 0, values.ndim))
        return values.square().sum(axes, keepdim=True).sqrt()


@dataclass(frozen=True, eq=False)
class Trained:
    """A perturbation after training."""

    perturbation: Perturbation
    path: tuple[float, ...]
    """The objective's mean over the examples, before each step."""


def pixel_batches(subject: Subject, examples: Sequence[Example], batch_size: int) -> list[Encoded]:
    """The examples with their answers, encoded. Their pixel values must have one shape, to be changed alike."""
    parts = portions(len(examples), batch_size, subject.model.device)
    batches = [subject.encode(examples[part], answers=True) for part in parts]
    shown = all(all(encoded.layout.images) for encoded in batches)
    if not shown or not all(isinstance(encoded.inputs.get("pixel_values"), Tensor) for encoded in batches):
        raise BadInput(f"{subject.name}: these examples give no pixel values; every example needs an image")
    if len({encoded.inputs["pixel_values"].shape[1:] for encoded in batches}) > 1:
        raise BadInput(
            "the images give pixel values of several shapes (large images are cut into more tiles), so they cannot be "
            "changed alike; give images of one size"
        )
    return batches


def with_pixels(encoded: Encoded, pixels: Tensor) -> Encoded:
    """The same prompts and answers with other pixels."""
    return replace(encoded, inputs={**encoded.inputs, "pixel_values": pixels})


def uniform_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Values drawn evenly between -1 and 1."""
    return 2 * torch.rand(*shape, generator=generator) - 1


def objective_gradient(
    objective: Objective, batches: Sequence[Encoded], perturbation: Perturbation, levels: PixelLevels
) -> tuple[float, Tensor]:
    """The objective's mean over all examples, and its gradient in the change."""
    change, mean = perturbation.change.detach().requires_grad_(True), 0.0
    gradient, count = torch.zeros_like(change), sum(len(encoded.layout.images) for encoded in batches)
    for encoded in batches:
        with torch.enable_grad():
            perturbed = replace(perturbation, change=change).on(encoded.inputs["pixel_values"], levels)
            value = objective(encoded, perturbed).sum() / count
            gradient += torch.autograd.grad(value, change)[0]
        mean += float(value.detach())
    return mean, gradient


def maximise(
    objective: Objective, batches: Sequence[Encoded], start: Perturbation, constraint: Constraint, levels: PixelLevels,
    *, steps: int, step_size: float = 0.15, momentum: float = 0.8,
) -> Trained:  # fmt: skip
    """Steps along the gradient with momentum, each projected back. `step_size` is a fraction of half the constraint's
    width, and falls linearly to zero."""
    change, path = start.change, list[float]()
    velocity = torch.zeros_like(change)
    for step in range(steps):
        value, gradient = objective_gradient(objective, batches, replace(start, change=change), levels)
        path.append(value)
        velocity = momentum * velocity + gradient / gradient.abs().mean().clamp_min(1e-12)
        size = step_size * constraint.half_width * (1 - step / steps)
        change = constraint.project(change + size * constraint.steepest(velocity))
    return Trained(replace(start, change=change.detach()), tuple(path))


def most_sensitive_window(gradient: Float[Tensor, "*batch height width"], side: int) -> Bool[Tensor, "..."]:
    """Where a square of this side holds most of the gradient's size, as a mask of the gradient's shape."""
    height, width = gradient.shape[-2:]
    energy = gradient.abs().reshape(-1, height, width).sum(0)[None, None]
    sums = torch.nn.functional.avg_pool2d(energy, side, stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    window = torch.zeros(gradient.shape, dtype=torch.bool, device=gradient.device)
    window[..., top : top + side, left : left + side] = True
    return window
