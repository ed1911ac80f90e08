"""What can be taught without changing a weight? A soft visual prompt: a vector added to each image token, the same for
every image.

    prompt = train_visual_prompt(subject, examples, Schedule(steps, learning_rate), batch=32, seed=0)
    with edited(subject, Plan({projector.output: VisualPrompt(prompt)})):
        ...                                                # the subject sees every image with the prompt
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glasshouse.data.examples import Examples
from glasshouse.model.frozen import frozen
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.model.training import Schedule, train
from glasshouse.model.training_batches import TrainingBatches
from glasshouse.values.changes import Edit, Plan
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import projector


@dataclass(frozen=True, eq=False)
class VisualPrompt(Edit):
    """Adds a vector of its own to each image token of an image."""

    vectors: Float[Tensor, "tokens width"]

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        if len(values) % len(self.vectors):
            raise BadInput(
                f"a soft visual prompt of {len(self.vectors)} tokens does not fit {len(values)} image tokens; "
                "give images of the size it was trained on"
            )
        return values + self.vectors.to(values).repeat(len(values) // len(self.vectors), 1)


def train_visual_prompt(
    subject: Subject, examples: Examples, schedule: Schedule, *, batch: int, seed: int,
    losses: list[float] | None = None,
) -> Float[Tensor, "tokens width"]:  # fmt: skip
    """Train a prompt to bring about the examples' answers. `losses` gets one number per step."""
    training = TrainingBatches(subject, examples, batch, seed)
    shape = list[int]()
    with torch.no_grad(), edited(subject, Plan({projector.output: _ShapeProbe(shape)})):
        training.loss(0)
    prompt = nn.Parameter(torch.zeros(shape[0] // batch, shape[1], device=subject.model.device))

    def loss(step: int) -> Tensor:
        with edited(subject, Plan({projector.output: VisualPrompt(prompt)})):
            return training.loss(step)

    with subject.alone, frozen(subject.model):
        path = train({"prompt": prompt}, loss, schedule, name="training a soft visual prompt")
    if losses is not None:
        losses += path
    return prompt.detach().cpu()


@dataclass(frozen=True, eq=False)
class _ShapeProbe(Edit):
    """Notes the shape of what it is given, and changes nothing."""

    shape: list[int]

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        self.shape[:] = values.shape
        return values
