"""What does a model answer to many examples? Greedy answers, in batches of answers of similar length."""

from collections.abc import Sequence

from glasshouse.data.examples import Example
from glasshouse.model.subject import Subject

MAX_NEW_TOKENS = 32
"""Usual limit on the length of an answer, in tokens."""


def answers(subject: Subject, examples: Sequence[Example], max_new_tokens: int, batch_size: int) -> list[str]:
    """The greedy answers, in the order of the examples. A batch takes as long as its longest answer, so examples whose
    reference answers are of similar length share a batch."""
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].answer or ""), len(examples[i].prompt)))
    texts = subject.generate([examples[i] for i in order], max_new_tokens=max_new_tokens, batch_size=batch_size)
    by_index = dict(zip(order, texts, strict=True))
    return [by_index[i] for i in range(len(examples))]
