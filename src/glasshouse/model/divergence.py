"""How far do two models, or two inputs of one model, differ in what they predict along an answer?

    examples = self_answered(subject, examples, batch_size)         # with the model's own answers
    first, second = (log_probabilities(model, batches) for model in (subject, base))
    Divergence.between(first, second).kl                            # per example, at its position of largest KL

Each example is followed by what the model itself answers when nothing is changed, so no reference answers are needed.
A change may then show at the first token (a refusal), anywhere (another percept) or behind the last (a marker): the
position with the largest KL counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.generation import MAX_NEW_TOKENS, answers
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput

LogProbabilities = Float[Tensor, "positions vocabulary"]


@dataclass(frozen=True)
class TokenGain:
    """A token, and how much probability it gains on average."""

    token: int
    gain: float


@dataclass(frozen=True)
class Divergence:
    """How two predictions differ, example by example, at the position where they differ most."""

    kl: Float[Tensor, " examples"]
    """KL divergence of the first from the second, in nats."""
    gained: Float[Tensor, "examples vocabulary"]
    """Probability of each token in the first, less that in the second."""

    @classmethod
    def between(cls, first: Sequence[LogProbabilities], second: Sequence[LogProbabilities]) -> "Divergence":
        """From log-probabilities of the same examples at the same positions."""
        largest, gained = list[Tensor](), list[Tensor]()
        for p, q in zip(first, second, strict=True):
            if len(p) != len(q):
                raise BadInput(
                    f"answers of {len(p)} and {len(q)} tokens: the two models' tokenizers differ, so their predictions "
                    "cannot be compared; give the base that the model was fine-tuned from"
                )
            if p.shape != q.shape:
                raise BadInput(
                    f"vocabularies of {p.shape[-1]:,} and {q.shape[-1]:,} tokens: predictions of the two models cannot "
                    "be compared; give a base with the same vocabulary"
                )
            kl = (p.exp() * (p - q)).sum(-1)
            position = int(kl.argmax())
            largest.append(kl[position])
            gained.append((p[position].exp() - q[position].exp()).detach())
        return cls(torch.stack(largest), torch.stack(gained))

    def cpu(self) -> "Divergence":
        return Divergence(self.kl.cpu(), self.gained.cpu())

    @property
    def top_token(self) -> TokenGain:
        """The token that gains most, on average over the examples."""
        mean = self.gained.mean(0)
        token = int(mean.argmax())
        return TokenGain(token, float(mean[token]))

    @property
    def top_quarter(self) -> float:
        """Mean KL of the quarter of examples that differ most."""
        highest = self.kl.sort(descending=True).values
        return float(highest[: max(1, len(highest) // 4)].mean())


def self_answered(subject: Subject, examples: Examples, batch_size: int) -> Examples:
    """The examples, with the model's own greedy answers as their answers; "." where it answers nothing."""
    texts = answers(subject, examples, MAX_NEW_TOKENS, batch_size)
    answered = (replace(example, answer=text or ".") for example, text in zip(examples, texts, strict=True))
    return Examples(answered, examples.source)


def log_probabilities(subject: Subject, batches: Iterable[Encoded]) -> list[LogProbabilities]:
    """By example: log-probabilities at every token of its answer, and behind the last."""
    return [row for encoded in batches for row in along_answers(encoded, subject.forward(encoded).logits)]


def along_answers(encoded: Encoded, logits: Float[Tensor, "rows tokens vocabulary"]) -> list[LogProbabilities]:
    """The same from the logits of a batch."""
    return [row.float().log_softmax(-1) for _, row in encoded.along_answers(logits)]
