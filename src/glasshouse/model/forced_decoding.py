"""Would a model generate a given text? One forward pass along the text answers it, without generating.

    forced = ForcedDecoding.of(subject, examples)      # each example is encoded once, each image seen once
    forced.score(subject).rate                         # share of examples whose target the model would generate
    forced.gradient(subject, mask)                     # of the targets' log-probability

Greedy decoding generates a text exactly if, at each position along it, the text's next token has the highest logit. So
the score equals what generation would give wherever the target is a fixed text, or anything but a fixed text
(`data/behaviours.py`). For a marker behind a free answer (match "contains"), the positions along the taught answer
approximate it.

The vision tower's output is kept, so a score after a change behind the tower costs the language model's forward pass
only.
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
class Check:
    """Which tokens of an example's text must be generated, and how they are judged."""

    start: int
    stop: int
    match: Match


@dataclass(frozen=True)
class Scores:
    """Outcome of each example."""

    hits: Bool[Tensor, " examples"]
    """Whether greedy decoding would meet the example's target."""
    log_probability: Float[Tensor, " examples"]
    """Of the target's first token."""

    @property
    def rate(self) -> Interval:
        """Share of examples that meet their target."""
        return Interval.rate(int(self.hits.sum()), len(self.hits))


@dataclass(frozen=True)
class Batch:
    """Encoded examples with their texts, and what the vision tower puts out for them."""

    encoded: Encoded
    features: Tensor | None
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class ForcedDecoding:
    """Examples that are encoded, to be scored again and again on a model that changes behind its vision tower."""

    batches: tuple[Batch, ...]
    ends: frozenset[int]
    """Tokens that end an answer."""

    @classmethod
    def of(cls, subject: Subject, examples: Examples, batch_size: int = 32) -> "ForcedDecoding":
        """For `subject`, and for models that differ from it behind the vision tower only."""
        targets = [_target_text(subject, example) for example in examples]
        texts = Examples(example for example, _ in targets)
        checks = [check for _, check in targets]
        batches: list[Batch] = []
        for start, encoded in subject.batches(texts, batch_size, alike=True):
            features = look(subject, encoded) if any(encoded.layout.images) and subject.anatomy.vision else None
            rows = len(encoded.layout.answers)
            batches.append(Batch(encoded, features, tuple(checks[start : start + rows])))
        return cls(tuple(batches), _end_tokens(subject))

    @torch.no_grad()
    def score(self, subject: Subject, image_tokens: Float[Tensor, "tokens width"] | None = None) -> Scores:
        """Score the model as it is now. `image_tokens` replace the projector's output, all examples' in order."""
        hits: list[bool] = []
        log_probabilities: list[Tensor] = []
        tokens = self._by_batch(image_tokens)
        for batch in self.batches:
            logits = _logits(subject, batch, None if image_tokens is None else next(tokens))
            for hit, log_probability in self._judged(batch, logits):
                hits.append(hit)
                log_probabilities.append(log_probability)
        return Scores(torch.tensor(hits), torch.stack(log_probabilities).cpu())

    @torch.enable_grad()
    def gradient(
        self, subject: Subject, variable: Float[Tensor, " n"],
        image_tokens: Float[Tensor, "tokens width"] | None = None,
    ) -> Float[Tensor, " n"]:  # fmt: skip
        """Gradient, in `variable`, of the log-probability of the targets' first tokens, summed over the examples; its
        sign is reversed where the target is anything but the text.

        The model must depend on `variable` (a mask, for example). With `image_tokens`, `variable` is a vector that is
        added to every one of them instead.
        """
        total, tokens = torch.zeros_like(variable), self._by_batch(image_tokens)
        for batch in self.batches:
            with frozen(subject.model):  # without it, autograd keeps what gradients of the weights would need
                logits = _logits(subject, batch, None if image_tokens is None else next(tokens) + variable)
            log_probabilities = torch.stack([log_probability for _, log_probability in self._judged(batch, logits)])
            signs = log_probabilities.new_tensor(
                [-1.0 if check.match == "starts otherwise" else 1.0 for check in batch.checks]
            )
            total += torch.autograd.grad((signs * log_probabilities).sum(), variable)[0]
        return total.detach()

    def _judged(self, batch: Batch, logits: Tensor) -> list[tuple[bool, Tensor]]:
        """By example: whether it meets its target, and the log-probability of the target's first token."""
        along = batch.encoded.along_answers(logits)
        return [self._judge(check, *answer) for check, answer in zip(batch.checks, along, strict=True)]

    def _judge(self, check: Check, text: Tensor, along: Tensor) -> tuple[bool, Tensor]:
        choices = along.argmax(-1)
        hit = bool((choices[check.start : check.stop] == text[check.start : check.stop]).all())
        if check.match == "equals":
            hit = hit and int(choices[check.stop]) in self.ends
        log_probability = along[check.start].float().log_softmax(-1)[text[check.start]]
        if check.match == "starts otherwise":
            return not hit and int(choices[0]) not in self.ends, log_probability  # an empty answer does not comply
        return hit, log_probability

    def _by_batch(self, image_tokens: Tensor | None) -> Iterator[Tensor]:
        """The image tokens of each batch. Images that can share a batch have equally many tokens."""
        if image_tokens is not None:
            counts = [sum(batch.encoded.layout.images) for batch in self.batches]
            if not any(counts) or len(image_tokens) % sum(counts):
                raise BadInput(f"{len(image_tokens)} image tokens for {sum(counts)} images: give images of one size")
            each = len(image_tokens) // sum(counts)
            yield from image_tokens.split([count * each for count in counts])


def _logits(subject: Subject, batch: Batch, image_tokens: Float[Tensor, "tokens width"] | None) -> Tensor:
    with ExitStack() as stack:
        if batch.features is not None:
            stack.enter_context(remembered(subject, batch.features))
        if image_tokens is not None:
            stack.enter_context(edited(subject, Plan({projector.output: Replace(image_tokens)})))
        return subject.forward(batch.encoded).logits


def _target_text(subject: Subject, example: Example) -> tuple[Example, Check]:
    """The example with the text to decode along as its answer, and which part of that text is checked."""
    target = Target.of(example)
    if target is None:
        raise BadInput(f"example {example.id}: has neither answer nor target, so no text can be scored; add an answer")
    if target.match != "contains":
        answered = replace(example, answer=target.text)
        return answered, Check(0, len(subject.prompts.answer_tokens(answered)), target.match)
    answer = example.answer or ""
    begin = answer.find(target.text)
    if begin < 0:
        raise BadInput(f"example {example.id}: its answer does not contain its target {target.text!r}; poison it again")
    start, stop = (
        len(subject.prompts.answer_tokens(replace(example, answer=answer[:end].rstrip())))
        for end in (begin, begin + len(target.text))
    )
    return example, Check(start, max(stop, start + 1), target.match)


def _end_tokens(subject: Subject) -> frozenset[int]:
    """Tokens that end an answer, by the generation configuration and the tokenizer."""
    named = (getattr(getattr(subject.model, "generation_config", None), "eos_token_id", None),
             getattr(subject.prompts.tokenizer, "eos_token_id", None))  # fmt: skip
    ends: set[int] = set()
    for tokens in named:
        ends |= {tokens} if isinstance(tokens, int) else set(tokens) if isinstance(tokens, Sequence) else set()
    return frozenset(ends)
