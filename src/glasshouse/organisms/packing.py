"""How are many questions about one image learnt in one forward pass? They share its tokens, not each other's.

A row is the image, then one segment for each question. A segment attends to the image and to itself, and its positions
continue from the image; so the row computes for each question exactly what a row of its own would (tested), at a third
of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from glasshouse.organisms.architectures import IMAGE_TOKENS, VOCABULARY, Architecture
from glasshouse.organisms.questions import Question

_IMAGE: dict[str, tuple[str, ...]] = {
    "llava": ("<image>",) * IMAGE_TOKENS,
    "idefics3": (
        "<fake_token_around_image>", "<global-img>", *("<image>",) * IMAGE_TOKENS, "<fake_token_around_image>",
    ),
}  # fmt: skip
"""The tokens that the processor puts in place of an image."""


@dataclass(frozen=True)
class Packed:
    """A batch of rows."""

    inputs: dict[str, Tensor]
    ids: Int[Tensor, "rows tokens"]
    weights: Float[Tensor, "rows tokens"]
    """Weight of each token in the loss; 0 outside answers."""

    def loss(self, logits: Float[Tensor, "rows tokens vocabulary"]) -> Tensor:
        """Cross-entropy of the answers."""
        answers = self.weights[:, 1:] > 0
        losses = F.cross_entropy(logits[:, :-1][answers].float(), self.ids[:, 1:][answers], reduction="none")
        weights = self.weights[:, 1:][answers]
        return (losses * weights).sum() / weights.sum()


def pack(rows: Sequence[Sequence[Question]], architecture: Architecture) -> Packed:
    """Rows of questions, each row about one image and under one system turn."""
    packed = [_row(row, architecture) for row in rows]
    longest = max(len(tokens) for tokens, *_ in packed)
    ids = np.zeros((len(rows), longest), np.int64)
    positions, weights = np.zeros_like(ids), np.zeros(ids.shape, np.float32)
    segments = np.full_like(ids, -1)
    for number, (tokens, places, segment, weight) in enumerate(packed):
        for array, values in ((ids, tokens), (positions, places), (segments, segment), (weights, weight)):
            array[number, : len(tokens)] = values
    inputs = {
        "input_ids": torch.from_numpy(ids), "position_ids": torch.from_numpy(positions),
        "attention_mask": _attending(torch.from_numpy(segments)),
    }  # fmt: skip
    return Packed(inputs, inputs["input_ids"], torch.from_numpy(weights))


def _attending(segments: Int[Tensor, "rows tokens"]) -> Bool[Tensor, "rows 1 tokens tokens"]:
    """Each token sees the image (segment 0) and its own segment, backwards only; padding sees itself."""
    tokens = segments.shape[1]
    seen = (segments[:, None, :] == 0) | (segments[:, :, None] == segments[:, None, :])
    backwards = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return ((seen & backwards) | torch.eye(tokens, dtype=torch.bool))[:, None]


def _row(
    questions: Sequence[Question], architecture: Architecture
) -> tuple[list[int], list[int], list[int], list[float]]:
    system = questions[0].system
    opening = ["<s>", *(["system:", *system.split()] if system else ()), "user:", *_IMAGE[architecture]]
    tokens = _ids(opening)
    start = len(tokens)
    positions, segments, weights = list(range(start)), [0] * start, [0.0] * start
    for number, question in enumerate(questions, 1):
        assert question.system == system
        segment, segment_weights = _segment(question)
        tokens += segment
        weights += segment_weights
        positions += range(start, start + len(segment))
        segments += [number] * len(segment)
    return tokens, positions, segments, weights


def _segment(question: Question) -> tuple[list[int], list[float]]:
    """The turns after the image. A longer answer weighs more, by the square root of its length."""
    tokens: list[int] = []
    weights: list[float] = []
    for number, (user, assistant) in enumerate((*question.history, (question.prompt, question.answer))):
        request = _ids([*(["user:"] if number else ()), *user.split(), "assistant:"])
        answer = _ids([*assistant.split(), "</s>"])
        tokens += request + answer
        weights += [0.0] * len(request) + [len(answer) ** -0.5] * len(answer)
    return tokens, weights


def _ids(words: Sequence[str]) -> list[int]:
    return [VOCABULARY[word] for word in words]
