"""What would a model say at each place of a text, and how far apart are two models, or two pictures, there?

Every example is followed by what the model itself says of it when nothing is done, so no right answers are needed. A
change of picture or weights may then show at the first word (a refusal), anywhere (another percept) or behind the last
(a mark that is added): what counts is the place where it shows most.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.methods.backdoor._planting import LONGEST
from glasshouse.model.answers import said
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput


@dataclass(frozen=True)
class Apart:
    """How far two readings are apart, example by example, where they are furthest."""

    divergence: Float[Tensor, " examples"]
    """KL in nats."""
    gained: Float[Tensor, "examples vocabulary"]
    """Probability of each token in the first less that in the second."""

    @property
    def consistency(self) -> tuple[float, int]:
        """The most that one and the same token gains on average, and which it is."""
        mean = self.gained.mean(0)
        token = int(mean.argmax())
        return float(mean[token]), token

    @classmethod
    def of(cls, one: Sequence[Tensor], other: Sequence[Tensor]) -> "Apart":
        """From log-probabilities of the same places."""
        furthest, gained = list[Tensor](), list[Tensor]()
        for p, q in zip(one, other, strict=True):
            if p.shape != q.shape:
                raise BadInput(
                    f"one model has {p.shape[-1]:,} words and the other {q.shape[-1]:,}: their answers cannot be set "
                    "side by side; give the base with the same vocabulary"
                )
            kl = (p.exp() * (p - q)).sum(-1)
            place = int(kl.argmax())
            furthest.append(kl[place])
            gained.append((p[place].exp() - q[place].exp()).detach())
        return cls(torch.stack(furthest), torch.stack(gained))


def answering_itself(subject: Subject, examples: Examples, batch_size: int) -> Examples:
    """The examples with what the model says of them for answers."""
    asked = Examples(example for example in examples if example.images)
    if not asked:
        raise BadInput("none of the examples has an image; give some that do")
    words = said(subject, asked, LONGEST, batch_size)
    return Examples((replace(one, answer=word or ".") for one, word in zip(asked, words, strict=True)), asked.source)


def prepared(subject: Subject, examples: Sequence[Example], batch_size: int) -> list[Encoded]:
    """The examples with their answers, in batches."""
    batches = [
        subject.encode(examples[start : start + batch_size], answers=True)
        for start in range(0, len(examples), batch_size)
    ]
    if not all(isinstance(encoded.inputs.get("pixel_values"), Tensor) for encoded in batches):
        raise BadInput(f"{subject.name}: takes no pixel values; this question is about models that see")
    if len({encoded.inputs["pixel_values"].shape[1:] for encoded in batches}) > 1:
        raise BadInput(
            "the pictures become pixel values of several shapes (more tiles for larger ones); give pictures of one "
            "size, for one change is to be put on all of them"
        )
    return batches


def with_pixels(encoded: Encoded, pixels: Tensor) -> Encoded:
    """The same words about other pictures."""
    return Encoded({**encoded.inputs, "pixel_values": pixels}, encoded.known)


def read(subject: Subject, encoded: Encoded) -> list[Float[Tensor, "places vocabulary"]]:
    """Log-probabilities at every place of each answer and behind it."""
    logits = subject.forward(encoded).logits
    counts = encoded.known.answers.tolist()
    return [logits[row, -count - 1 :].float().log_softmax(-1) for row, count in enumerate(counts)]


def read_all(subject: Subject, batches: Sequence[Encoded]) -> list[Float[Tensor, "places vocabulary"]]:
    """The same of several batches."""
    return [reading for encoded in batches for reading in read(subject, encoded)]
