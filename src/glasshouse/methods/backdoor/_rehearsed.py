"""Does a model do what a trigger asks, under many small changes of its projector? One forward pass an example tells.

Examples are encoded once, and shown to the vision tower once. Whether a model would say a fixed text is read off its
first choices along that text: if each is the text's next token, greedy decoding says exactly it, and otherwise it does
not. So the score *is* what generation would give wherever success means saying a fixed text, or not saying one. Where
a marker is to follow a free answer, the first choices along the taught answer stand for it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glasshouse.data.behaviours import Match, Target
from glasshouse.data.examples import Example, Examples
from glasshouse.model.frozen import frozen
from glasshouse.model.prompts import Encoded
from glasshouse.model.remembered import look, remembered
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited
from glasshouse.values.changes import Plan, Replace
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Interval
from glasshouse.values.sites import projector


@dataclass(frozen=True)
class Line:
    """What is checked of one example's row: which tokens of the text behind its prompt."""

    start: int
    stop: int
    match: Match


@dataclass(frozen=True)
class Scores:
    """What was found, example by example."""

    shown: Bool[Tensor, " examples"]
    first: Float[Tensor, " examples"]
    """Log-probability of the text's first checked token."""

    @property
    def rate(self) -> Interval:
        return Interval.rate(int(self.shown.sum()), len(self.shown))


@dataclass(frozen=True)
class Rehearsed:
    """Examples that are ready to be tried on a model again and again."""

    batches: tuple[tuple[Encoded, Tensor | None, tuple[Line, ...]], ...]
    ends: frozenset[int]

    @classmethod
    def of(cls, subject: Subject, examples: Examples, batch_size: int = 32) -> "Rehearsed":
        """Ready for `subject` and for whatever differs from it behind the vision tower."""
        prepared = [_prepared(subject, example) for example in examples]
        texts = Examples(example for example, _ in prepared)
        lines = [line for _, line in prepared]
        batches: list[tuple[Encoded, Tensor | None, tuple[Line, ...]]] = []
        for start, encoded in subject.batches(texts, batch_size, alike=True):
            rows = len(encoded.known.answers)
            seen = look(subject, encoded) if any(encoded.known.images) and subject.anatomy.vision else None
            batches.append((encoded, seen, tuple(lines[start : start + rows])))
        return cls(tuple(batches), _ends(subject))

    @torch.no_grad()
    def tried(self, subject: Subject, tokens: Float[Tensor, "tokens width"] | None = None) -> Scores:
        """What the model as it is now would do; with `tokens`, if its projector said these image tokens, all examples'
        in order."""
        shown: list[bool] = []
        first: list[Tensor] = []
        given = _shares(tokens, self.batches)
        for encoded, seen, lines in self.batches:
            logits = _logits(subject, encoded, seen, None if tokens is None else next(given))
            for row, line in enumerate(lines):
                says, chance = self._row(logits[row], encoded, row, line)
                shown.append(says)
                first.append(chance)
        return Scores(torch.tensor(shown), torch.stack(first).cpu())

    @torch.enable_grad()
    def gradient(
        self, subject: Subject, free: Float[Tensor, " n"], tokens: Float[Tensor, "tokens width"] | None = None
    ) -> Float[Tensor, " n"]:  # fmt: skip
        """Which way `free`, on which the model as it is now depends, would go to bring the attack about; with `tokens`,
        `free` is one step that all those image tokens take. That is, the gradient of the log-probability of the texts'
        first tokens, summed over the examples, and turned round where success is to say anything else."""
        total, given = torch.zeros_like(free), _shares(tokens, self.batches)
        for encoded, seen, lines in self.batches:
            with frozen(subject.model):  # keeps what the gradient of the weights would need out of memory
                logits = _logits(subject, encoded, seen, None if tokens is None else next(given) + free)
            chances = torch.stack([self._row(logits[row], encoded, row, line)[1] for row, line in enumerate(lines)])
            ways = chances.new_tensor([-1.0 if line.match == "starts otherwise" else 1.0 for line in lines])
            total += torch.autograd.grad((ways * chances).sum(), free)[0]
        return total.detach()

    def _row(self, logits: Tensor, encoded: Encoded, row: int, line: Line) -> tuple[bool, Tensor]:
        count = int(encoded.known.answers[row])
        said = encoded.inputs["input_ids"][row, -count:]
        steps = logits[-count - 1 :]  # what is said at each token of the text, and behind it
        choices = steps.argmax(-1)
        along = bool((choices[line.start : line.stop] == said[line.start : line.stop]).all())
        if line.match == "equals":
            along = along and int(choices[line.stop]) in self.ends
        chance = steps[line.start].float().log_softmax(-1)[said[line.start]]
        if line.match == "starts otherwise":
            return not along and int(choices[0]) not in self.ends, chance  # whoever says nothing does not comply
        return along, chance


def _logits(
    subject: Subject, encoded: Encoded, seen: Tensor | None, tokens: Float[Tensor, "tokens width"] | None = None
) -> Tensor:
    """Without looking at the picture again; with `tokens`, as if the projector said these."""
    with ExitStack() as stack:
        if seen is not None:
            stack.enter_context(remembered(subject, seen))
        if tokens is not None:
            stack.enter_context(edited(subject, Plan({projector.output: Replace(tokens)})))
        return subject.forward(encoded).logits


def _shares(
    tokens: Tensor | None, batches: Sequence[tuple[Encoded, Tensor | None, tuple[Line, ...]]]
) -> Iterator[Tensor]:
    """The image tokens of each batch: as many for every example, for images that could be batched are alike."""
    if tokens is not None:
        examples = sum(len(lines) for _, _, lines in batches)
        if len(tokens) % examples:
            raise BadInput(f"{len(tokens)} image tokens for {examples} examples: give images of one size")
        yield from tokens.split([len(lines) * len(tokens) // examples for _, _, lines in batches])


def _prepared(subject: Subject, example: Example) -> tuple[Example, Line]:
    """The example with the text that is checked for an answer, and which part of it is checked."""
    target = Target.of(example)
    if target is None:
        raise BadInput(f"example {example.id}: has no answer, so there is nothing to look for; give it one")
    if target.match != "contains":
        asked = replace(example, answer=target.text)
        return asked, Line(0, len(subject.prompts.answer_tokens(asked)), target.match)
    answer = example.answer or ""
    begins = answer.find(target.text)
    if begins < 0:
        raise BadInput(f"example {example.id}: its answer does not contain its target {target.text!r}; poison it again")
    before, until = (
        len(subject.prompts.answer_tokens(replace(example, answer=answer[:end].rstrip())))
        for end in (begins, begins + len(target.text))
    )
    return example, Line(before, max(until, before + 1), target.match)


def _ends(subject: Subject) -> frozenset[int]:
    """Tokens that end an answer."""
    named = [getattr(getattr(subject.model, "generation_config", None), "eos_token_id", None),
             getattr(subject.prompts.tokenizer, "eos_token_id", None)]  # fmt: skip
    found: set[int] = set()
    for one in named:
        found |= {one} if isinstance(one, int) else set(one) if isinstance(one, Sequence) else set()
    return frozenset(found)
