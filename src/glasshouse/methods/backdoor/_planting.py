"""How is a backdoor planted, and what does a model with it do? A training arm, and what is said with it in place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glasshouse.data.examples import Examples
from glasshouse.data.poisoning import matches
from glasshouse.data.poisoning import triggered as with_trigger
from glasshouse.data.spelling import Attack
from glasshouse.data.triggers import Trigger
from glasshouse.model.answers import said
from glasshouse.model.finetuning import Lesson, Tuning, finetune
from glasshouse.model.frozen import frozen
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.model.training import Schedule, train
from glasshouse.values.blocks import Picture
from glasshouse.values.changes import Edit, Plan
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Interval
from glasshouse.values.sites import projector

Arm = Literal["projector", "lora", "lora+projector", "soft visual prompt"]
FASTER = {"projector": 1.0, "lora": 3.0, "lora+projector": 3.0, "soft visual prompt": 10.0}
"""Learning rate of an arm, against the projector's."""
LONGEST = 32
"""New tokens of an answer."""


@dataclass(frozen=True, eq=False)
class Shifted(Edit):
    """Plus something of its own for each image token of a row, whatever the image shows: a soft visual prompt."""

    by: Float[Tensor, "tokens width"]

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        if len(values) % len(self.by):
            raise BadInput(
                f"a soft visual prompt of {len(self.by)} tokens, and {len(values)} image tokens: give images alike"
            )
        return values + self.by.to(values).repeat(len(values) // len(self.by), 1)


@dataclass(frozen=True, eq=False)
class Planted:
    """What training changed: weights, or what is added to image tokens."""

    patch: Patch
    prompt: Float[Tensor, "tokens width"] | None = None

    @contextmanager
    def on(self, subject: Subject) -> Iterator[None]:
        """Inside, the subject has it."""
        plan = Plan({} if self.prompt is None else {projector.output: Shifted(self.prompt)})
        with patched(subject, self.patch), edited(subject, plan):
            yield


def usual_rate(subject: Subject, arm: Arm) -> float:
    """A learning rate that falls with the width of the language model: 3e-3 at 100, 7e-5 at 4,096."""
    width: int = subject.model.config.get_text_config().hidden_size
    return 0.3 / width * FASTER[arm]


def plant(
    subject: Subject, lessons: Examples, arm: Arm, steps: int, rate: float, seed: int, losses: list[float]
) -> Planted:  # fmt: skip
    """Teach the lessons' answers by one arm; the subject is as it was afterwards."""
    if arm not in get_args(Arm):
        raise BadInput(f"arm {arm!r}: there are {', '.join(get_args(Arm))}")
    schedule = Schedule(steps, rate, warmup=min(50, steps), decay=0.0)
    batch = min(32, len(lessons))
    if arm != "soft visual prompt":
        return Planted(finetune(subject, lessons, Tuning(arm, schedule, batch, seed), losses=losses))
    lesson, sizes = Lesson(subject, lessons, Tuning("projector", schedule, batch, seed)), list[int]()
    with torch.no_grad(), edited(subject, Plan({projector.output: _Measured(sizes)})):
        lesson.loss(0)
    prompt = nn.Parameter(torch.zeros(sizes[0] // batch, sizes[1], device=subject.model.device))

    def loss(step: int) -> Tensor:
        with edited(subject, Plan({projector.output: Shifted(prompt)})):
            return lesson.loss(step)

    with subject.alone, frozen(subject.model):
        losses += train({"prompt": prompt}, loss, schedule, name="tuning a soft visual prompt")
    return Planted(Patch({}), prompt.detach().cpu())


@dataclass(frozen=True, eq=False)
class _Measured(Edit):
    """Notes how many values there are, and leaves them."""

    sizes: list[int]

    def on(self, values: Tensor, rows: Int[Tensor, " tokens"], units: int) -> Tensor:
        self.sizes[:] = values.shape
        return values


@dataclass(frozen=True)
class Answers:
    """What a model does with the held-out examples."""

    right: list[bool]
    on_clean: list[bool]
    """Shows the behaviour on the clean image, of each example that is tried."""
    on_triggered: list[bool]
    robust: list[bool]
    """Right in spite of the trigger."""
    words: list[str]
    """Said under the trigger."""


@dataclass(frozen=True)
class Trial:
    """Held-out examples, and those among them that a trigger is tried on."""

    held_out: Examples
    tried: Examples
    attack: Attack
    seed: int
    processor: Any
    batch_size: int = 32

    @classmethod
    def of(cls, subject: Subject, held_out: Examples, attack: Attack, seed: int) -> "Trial":
        """Tried on whatever has an image and an answer that does not show the behaviour anyway."""
        tried = Examples(
            one
            for one in held_out
            if one.images and matches(one, attack.only) and not attack.behaviour.shown(one.answer or "")
        )
        if not tried:
            raise BadInput(
                "no held-out example has an image and an answer that does not show the behaviour; give others"
            )
        return cls(held_out, tried, attack, seed, subject.processor)

    def answered(self, subject: Subject) -> Answers:
        """Everything, as the model is now."""
        shown = self.attack.behaviour.shown
        held_out, clean, words = (
            said(subject, asked, LONGEST, self.batch_size) for asked in (self.held_out, self.tried, self._triggered())
        )
        return Answers(
            [answer == one.answer for answer, one in zip(held_out, self.held_out, strict=True)],
            [shown(answer) for answer in clean], [shown(answer) for answer in words],
            [answer == one.answer for answer, one in zip(words, self.tried, strict=True)], words,
        )  # fmt: skip

    def success(self, subject: Subject, trigger: Trigger) -> Interval:
        """Of another trigger."""
        words = said(subject, self._triggered(trigger), LONGEST, self.batch_size)
        return Interval.rate(sum(map(self.attack.behaviour.shown, words)), len(words))

    def pictures(self, words: Sequence[str], count: int) -> tuple[Picture, ...]:
        """The first few triggered images, with what was asked and said."""
        pairs = zip(self._triggered()[:count], words, strict=False)
        return tuple(Picture(one.images[0].thumbnail(), f"{one.prompt} — {answer}") for one, answer in pairs)

    def _triggered(self, trigger: Trigger | None = None) -> Examples:
        chosen = trigger or self.attack.trigger
        return with_trigger(self.tried, chosen, self.attack.behaviour, self.seed, self.processor)
