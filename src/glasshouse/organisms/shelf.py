"""Which organisms are there? `organism:NAME` anywhere a model is asked for."""

from glasshouse.data.examples import Examples
from glasshouse.model.subject import Subject, open_subject
from glasshouse.values.errors import BadInput

PREFIX = "organism:"
NAMES = ("seedling",)


def is_organism(name: str) -> bool:
    return name.startswith(PREFIX)


def take(name: str) -> Subject:
    """The organism, opened and proved."""
    _check(name)
    from glasshouse.organisms import seedling  # brings many model classes, which other models do not need

    subject = open_subject(seedling.model(), processor=seedling.processor())
    subject.name = name
    return subject


def food(name: str) -> Examples:
    """Examples of the world the organism lives in."""
    _check(name)
    from glasshouse.organisms import seedling

    return seedling.examples()


def _check(name: str) -> None:
    if name.removeprefix(PREFIX) not in NAMES:
        raise BadInput(f"{name}: no such organism; there is {', '.join(PREFIX + known for known in NAMES)}")
