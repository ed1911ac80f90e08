"""What does fine-tuning show the model at each step? Batches in an order that the seed alone decides.

    batches = TrainingBatches(subject, examples, batch=32, seed=0)
    batches.loss(step)

Each batch is encoded and goes through the vision tower once, as far as memory allows; where the vision tower itself is
trained (`keep_features=False`), it goes through it at every step.
"""

from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.divergence import LogProbabilities, along_answers
from glasshouse.model.prompts import Encoded
from glasshouse.model.remembered import look, remembered
from glasshouse.model.subject import Subject
from glasshouse.model.training import answer_loss, mixed_precision
from glasshouse.numerics.randomness import seeded

CACHE_BYTES = 4 * 2**30
"""Batches kept in main memory; those beyond it go through the vision tower at every step."""


class TrainingBatches:
    """Training examples in batches, and the loss on each."""

    def __init__(
        self, subject: Subject, examples: Examples, batch: int, seed: int, *, anchor: float = 0.0,
        keep_features: bool = True,
    ) -> None:  # fmt: skip
        self.subject, self.seed, self.anchor, self.keep_features = subject, seed, anchor, keep_features
        order = torch.randperm(len(examples), generator=seeded(seed)).tolist()
        mixed = Examples([examples[i] for i in order], examples.source)
        self.batches = [part for part in mixed.batches(batch) if len(part) == min(batch, len(mixed))]
        self.cache: dict[int, tuple[Encoded, Tensor | None]] = {}
        self.room = CACHE_BYTES
        self.end = subject.prompts.tokenizer.eos_token_id
        self.untuned = [self._predictions(number) for number in range(len(self.batches))] if anchor else []
        """By batch, what the model predicts along the answers of clean examples before it is trained."""

    def loss(self, step: int) -> Tensor:
        """The loss on the batch of this step."""
        epoch, place = divmod(step, len(self.batches))
        order = torch.randperm(len(self.batches), generator=seeded(self.seed + 1 + epoch))
        number = int(order[place])
        encoded, logits = self._logits(number)
        loss = answer_loss(logits, encoded, self.end)
        return loss + self.anchor * self._divergence(number, encoded, logits) if self.anchor else loss

    def _logits(self, number: int) -> tuple[Encoded, Tensor]:
        encoded, features = self._batch(number)
        with mixed_precision(self.subject.model), ExitStack() as stack:
            if features is not None:
                stack.enter_context(remembered(self.subject, features))
            return encoded, self.subject.forward(encoded).logits

    @torch.no_grad()
    def _predictions(self, number: int) -> list[LogProbabilities | None]:
        """By row; None for a poisoned example, which has to be answered differently."""
        encoded, logits = self._logits(number)
        along = along_answers(encoded, logits)
        poisoned = [example.tags.get("poisoned") is True for example in self.batches[number]]
        return [None if skip else row.half().cpu() for skip, row in zip(poisoned, along, strict=True)]

    def _divergence(self, number: int, encoded: Encoded, logits: Tensor) -> Tensor:
        """Mean KL divergence of the untuned model's predictions from those now, over the clean rows."""
        now = along_answers(encoded, logits)
        divergences = [logits.new_zeros(())]
        for before, after in zip(self.untuned[number], now, strict=True):
            if before is not None:
                first = before.to(after)
                divergences.append((first.exp() * (first - after)).sum(-1).mean())
        return torch.stack(divergences).sum() / len(now)

    def _batch(self, number: int) -> tuple[Encoded, Tensor | None]:
        if number in self.cache:
            encoded, features = self.cache[number]
            return _to(encoded, self.subject.model.device), features
        encoded = self.subject.encode(self.batches[number], answers=True)
        has_images = any(encoded.layout.images) and self.subject.anatomy.vision is not None
        features = look(self.subject, encoded) if has_images and self.keep_features else None
        size = sum(value.nbytes for value in encoded.inputs.values()) + (0 if features is None else features.nbytes)
        if size <= self.room:
            self.room -= size
            self.cache[number] = _to(encoded, torch.device("cpu")), None if features is None else features.cpu()
        return encoded, features


def _to(encoded: Encoded, device: torch.device) -> Encoded:
    """The same batch on that device."""
    return replace(encoded, inputs={name: value.to(device) for name, value in encoded.inputs.items()})
