"""How is a backdoor implanted, and how does a model with it behave? Training by one arm, and the held-out examples.

`trained`, `behaviour_with` and `asr_of_near_miss` are the units of work of `implant`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.data.poisoning import matches
from glasshouse.data.poisoning import triggered as with_trigger
from glasshouse.data.spelling import Attack
from glasshouse.data.triggers import Trigger
from glasshouse.model.finetuning import Tuning, default_learning_rate, finetune
from glasshouse.model.generation import MAX_NEW_TOKENS, answers
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.model.training import Schedule
from glasshouse.model.visual_prompt import VisualPrompt, train_visual_prompt
from glasshouse.values.blocks import Picture
from glasshouse.values.changes import Plan
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Interval
from glasshouse.values.sites import projector

Arm = Literal["projector", "lora", "lora+projector", "soft visual prompt"]
LEARNING_RATE_FACTOR = {"projector": 1.0, "lora": 3.0, "lora+projector": 3.0, "soft visual prompt": 10.0}
"""Learning rate of an arm, relative to the projector's."""


@dataclass(frozen=True, eq=False)
class Implant:
    """What training changed: weights, or what is added to image tokens."""

    patch: Patch
    prompt: Float[Tensor, "tokens width"] | None = None

    @contextmanager
    def on(self, subject: Subject) -> Iterator[None]:
        """Inside, the subject has it."""
        plan = Plan({} if self.prompt is None else {projector.output: VisualPrompt(self.prompt)})
        with patched(subject, self.patch), edited(subject, plan):
            yield


def arm_learning_rate(subject: Subject, arm: Arm) -> float:
    """The default learning rate of an arm for a model of this width."""
    return default_learning_rate(subject) * LEARNING_RATE_FACTOR[arm]


def implant_by(
    subject: Subject, training: Examples, arm: Arm, steps: int, learning_rate: float, seed: int, losses: list[float]
) -> Implant:  # fmt: skip
    """Train the examples' answers into one arm; afterwards the subject is as it was."""
    if arm not in get_args(Arm):
        raise BadInput(f"arm {arm!r}: there are {', '.join(get_args(Arm))}")
    schedule = Schedule(steps, learning_rate, warmup=min(50, steps), decay=0.0)
    batch = min(32, len(training))
    if arm == "soft visual prompt":
        prompt = train_visual_prompt(subject, training, schedule, batch=batch, seed=seed, losses=losses)
        return Implant(Patch({}), prompt)
    return Implant(finetune(subject, training, Tuning(arm, schedule, batch, seed), losses=losses))


@dataclass(frozen=True, eq=False)
class Trained:
    """One training."""

    implant: Implant
    losses: tuple[float, ...]
    """By step."""


def trained(training: Examples, subject: Subject, arm: Arm, steps: int, learning_rate: float, seed: int) -> Trained:
    """What training on these examples changes."""
    losses = list[float]()
    implant = implant_by(subject, training, arm, steps, learning_rate, seed, losses)
    return Trained(implant, tuple(losses))


@dataclass(frozen=True)
class Behaviour:
    """What a model does with the held-out examples."""

    correct: list[bool]
    """Whether each clean example is answered correctly."""
    on_clean: list[bool]
    """Whether the behaviour shows on the clean image, for each attacked example."""
    on_triggered: list[bool]
    """The same on the triggered image."""
    correct_triggered: list[bool]
    """Whether the answer is correct in spite of the trigger."""
    answers: list[str]
    """To the triggered examples."""


@dataclass(frozen=True)
class AttackTrial:
    """Held-out examples, and those among them that are attacked."""

    held_out: Examples
    attacked: Examples
    attack: Attack
    seed: int
    processor: Any
    batch_size: int = 32

    @classmethod
    def of(cls, subject: Subject, held_out: Examples, attack: Attack, seed: int) -> "AttackTrial":
        """Attacks every example with an image and a reference answer that does not show the behaviour anyway."""
        attacked = Examples(
            example
            for example in held_out
            if example.images and matches(example, attack.only) and not attack.behaviour.shown(example.answer or "")
        )
        if not attacked:
            raise BadInput(
                "no held-out example has an image and an answer that does not show the behaviour; give others"
            )
        return cls(held_out, attacked, attack, seed, subject.processor)

    def behaviour(self, subject: Subject) -> Behaviour:
        """Of the model as it is now."""
        shows = self.attack.behaviour.shown
        held_out, clean, triggered = (
            answers(subject, examples, MAX_NEW_TOKENS, self.batch_size)
            for examples in (self.held_out, self.attacked, self._triggered(self.attack.trigger))
        )
        return Behaviour(
            [answer == example.answer for answer, example in zip(held_out, self.held_out, strict=True)],
            [shows(answer) for answer in clean], [shows(answer) for answer in triggered],
            [answer == example.answer for answer, example in zip(triggered, self.attacked, strict=True)], triggered,
        )  # fmt: skip

    def asr(self, subject: Subject, trigger: Trigger) -> Interval:
        """Attack success rate of another trigger."""
        texts = answers(subject, self._triggered(trigger), MAX_NEW_TOKENS, self.batch_size)
        return Interval.rate(sum(map(self.attack.behaviour.shown, texts)), len(texts))

    def gallery(self, texts: Sequence[str], count: int) -> tuple[Picture, ...]:
        """The first triggered images, with prompt and answer."""
        pairs = zip(self._triggered(self.attack.trigger)[:count], texts, strict=False)
        return tuple(Picture(example.images[0].thumbnail(), f"{example.prompt} — {text}") for example, text in pairs)

    def _triggered(self, trigger: Trigger) -> Examples:
        return with_trigger(self.attacked, trigger, self.attack.behaviour, self.seed, self.processor)


def behaviour_with(implant: Implant, subject: Subject, trial: AttackTrial) -> Behaviour:
    """What the model does with an implant."""
    with implant.on(subject):
        return trial.behaviour(subject)


def asr_of_near_miss(name: str, subject: Subject, implant: Implant, trial: AttackTrial) -> Interval:
    """Attack success rate of a similar trigger, named as the trigger names it."""
    with implant.on(subject):
        return trial.asr(subject, trial.attack.trigger.near_misses()[name])
