"""What does a model say to many examples? Greedy answers, in batches of what is likely to be of like length."""

from collections.abc import Sequence

from glasshouse.data.examples import Example
from glasshouse.model.subject import Subject


def said(subject: Subject, examples: Sequence[Example], longest: int, batch_size: int) -> list[str]:
    """In the order of the examples. A batch lasts as long as its longest answer, so those whose right answers are of
    like length are given together."""
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i].answer or ""), len(examples[i].prompt)))
    found = subject.generate([examples[i] for i in order], max_new_tokens=longest, batch_size=batch_size)
    answers = dict(zip(order, found, strict=True))
    return [answers[i] for i in range(len(examples))]
