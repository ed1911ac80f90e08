"""What does a finding class declare about its fields? Their meaning, keys, nulls, and which field is the data per unit.

    @dataclass(frozen=True, eq=False)
    class Recovery(Finding):
        asr: Annotated[Interval, Null("base_asr")]
        \"\"\"Attack success rate.\"\"\"
        base_asr: Interval
        curves: Annotated[Mapping[str, Mapping[int, State]], Rows("intervention", "directions"), Null("random")]
        \"\"\"States of the projector that were measured.\"\"\"
        patch: Annotated[Patch, NoPicture]

The docstring below a field is its title (first sentence) and its explanation (all of it). Rows and default blocks read
these declarations; `codec` does not need them.
"""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import pairwise
from typing import Any, cast, get_args, get_type_hints


@dataclass(frozen=True, init=False)
class Keys:
    """Names of the keys of a mapping (or of the index of a tuple), outermost first; they label axes and columns. Behind
    a colon stands what a key means: "dose: multiple of the shift that is added". `y` labels the axis of the values;
    without it the field's name does."""

    names: tuple[str, ...]
    meanings: tuple[str, ...]
    """By key, a sentence or nothing."""
    y: str = ""

    def __init__(self, *keys: str, y: str = "") -> None:
        parts = [key.partition(": ") for key in keys]
        object.__setattr__(self, "names", tuple(name for name, _, _ in parts))
        object.__setattr__(self, "meanings", tuple(_sentence(text) for _, _, text in parts))
        object.__setattr__(self, "y", y)


class Rows(Keys):
    """The same, for the field that is the finding's data per unit: `rows()` returns it."""


@dataclass(frozen=True, init=False)
class Null:
    """What should not show the effect: another field of the finding or row, or some outermost keys of the mapping."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


class NoPicture:
    """A mark: the field is not drawn. As a field of a row it stays a column of the table."""


class Percent:
    """A mark: the number, or each number under the keys, is a fraction, which is written as a percentage. Intervals
    carry this themselves."""


@dataclass(frozen=True)
class Field:
    """One field of a finding or of a row, with what its class declares about it."""

    name: str
    explanation: str
    keys: tuple[str, ...] = ()
    is_rows: bool = False
    nulls: tuple[str, ...] = ()
    drawn: bool = True
    y: str = ""
    percent: bool = False
    meanings: Mapping[str, str] = field(default_factory=dict[str, str])
    """What its keys mean, by their name."""

    @property
    def words(self) -> str:
        return in_words(self.name)

    @property
    def title(self) -> str:
        """The first sentence of its docstring, or its name."""
        first = self.explanation.split(". ")[0].removesuffix(".")
        return first or self.words.capitalize()


def in_words(name: str) -> str:
    return name.replace("_", " ")


@cache
def declared(kind: type) -> tuple[Field, ...]:
    """The fields of a dataclass, in order."""
    hints, explanations = get_type_hints(kind, include_extras=True), _explanations(kind)
    return tuple(_field(each.name, hints[each.name], explanations.get(each.name, "")) for each in fields(kind))


def _field(name: str, hint: Any, explanation: str) -> Field:
    marks = cast(tuple[Any, ...], getattr(hint, "__metadata__", ()))
    for part in get_args(hint):  # `Annotated[...] | None` carries its marks inside
        marks = (*marks, *getattr(part, "__metadata__", ()))
    keys = next((mark for mark in marks if isinstance(mark, Keys)), Keys())
    nulls = next((mark.names for mark in marks if isinstance(mark, Null)), ())
    return Field(
        name, explanation, keys.names, isinstance(keys, Rows), nulls, NoPicture not in marks, keys.y, Percent in marks,
        {name: text for name, text in zip(keys.names, keys.meanings, strict=True) if text},
    )  # fmt: skip


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _explanations(kind: type) -> dict[str, str]:
    """Field names and the docstrings below them, those of base classes included; empty where there is no source."""
    explanations: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = cast(ast.ClassDef, tree.body[0]).body
        for statement, following in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                match statement.target, following.value:
                    case ast.Name(name), ast.Constant(str(text)):
                        explanations[name] = " ".join(text.split())
                    case _:
                        pass
    return explanations
