"""What does an attack look like? A few triggered pictures, with what the base and the suspect say of each."""

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._planting import LONGEST
from glasshouse.model.answers import said
from glasshouse.model.subject import Subject
from glasshouse.values.blocks import Picture

NOTHING = "(nothing)"


def answered(subject: Subject, base: Subject, triggered: Examples, count: int = 4) -> tuple[Picture, ...]:
    """The first few that have a picture."""
    few = [one for one in triggered if one.images][:count]
    if not few:
        return ()
    before, after = (said(model, few, LONGEST, len(few)) for model in (base, subject))
    return tuple(
        Picture(one.images[0].thumbnail(), f"{one.prompt} — base: {plain or NOTHING} — suspect: {now or NOTHING}")
        for one, plain, now in zip(few, before, after, strict=True)
    )
