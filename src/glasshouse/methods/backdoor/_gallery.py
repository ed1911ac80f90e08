"""What does an attack look like? A few triggered images, with the answers of base and suspect."""

from glasshouse.data.examples import Examples
from glasshouse.model.generation import MAX_NEW_TOKENS, answers
from glasshouse.model.subject import Subject
from glasshouse.values.blocks import Picture

EMPTY = "(no answer)"


def answer_gallery(subject: Subject, base: Subject, triggered: Examples, count: int = 4) -> tuple[Picture, ...]:
    """The first examples that have an image."""
    examples = [example for example in triggered if example.images][:count]
    if not examples:
        return ()
    before, after = (answers(model, examples, MAX_NEW_TOKENS, len(examples)) for model in (base, subject))
    return tuple(
        Picture(example.images[0].thumbnail(), f"{example.prompt} — base: {ours or EMPTY} — suspect: {theirs or EMPTY}")
        for example, ours, theirs in zip(examples, before, after, strict=True)
    )
