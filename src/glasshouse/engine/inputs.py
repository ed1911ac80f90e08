"""What can a method be given? The type of a parameter says which kind of input it is, its annotation what it means.

    def recovery(subject: Subject, base: Base, pairs: Pairs, options: Options = Options()) -> RecoveryFinding: ...
    Base = Annotated[Subject, Meaning("the model it was fine-tuned from", organism="base")]

- `subject: Subject`                     the kind's own meaning and flag (`--model`); at most one of each kind
- `base: Annotated[Subject, "…"]`        another input of that kind: the parameter's name is its flag (`--base`)
- `pairs: Pairs | None = None`           may be left out
- `checkpoints: Sequence[Subject]`       several, in order

A kind knows how to read its value from text, limit it, identify it (provenance and resume key), what an organism brings
for it and a small sample for tests. Packages add kinds through the entry-point group `glasshouse.kinds`; the kinds that
come with glasshouse are in `kinds.py`. Nothing else in the engine depends on a kind, or on the name of a parameter.
"""

import inspect
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from glasshouse.data.examples import Examples
from glasshouse.engine.opening import Opening
from glasshouse.model.outline import Outline
from glasshouse.organisms.organism import Organism
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import listed

T = TypeVar("T")
RESERVED = frozenset(
    ("adapter", "answer-column", "batch-size", "depth", "device", "download", "dry-run", "dtype", "fail-on", "from",
     "help", "image-column", "image-folder", "json", "limit", "max-pixels", "messages-column", "on",
     "prompt-column", "remote-code", "revision", "runs", "unproved")
)  # fmt: skip
"""Flags of the commands themselves; an input cannot be called so."""
AUDITS = frozenset(("batch-size", "depth", "fail-on"))
"""Those of `audit` alone; an option of a method can."""


@dataclass(frozen=True)
class Meaning:
    """What an input stands for."""

    text: str
    """Completes the sentence "give …"."""
    organism: str = ""
    """Which attribute of an `Organism` fills it when the user gives nothing; empty: none does."""


class Kind(ABC, Generic[T]):
    """One kind of input. Subclasses set the class attributes; an instance is stateless."""

    type: type[T]
    """The annotation that asks for it."""
    flag: str
    """Flag of an input that has no meaning of its own."""
    metavar: str
    """What stands behind the flag in the help."""
    form: str
    """How its value is written, in words."""
    example: str
    """Such a value, for the fix in an error message."""
    meaning: Meaning
    reading: Mapping[str, str] = {}
    """Flags, with their help, that say how the values of a command are read; `spelled` writes them into the texts."""
    slow: bool = False
    """Slow to read: read last, so that a mistake elsewhere is reported first."""

    @property
    def name(self) -> str:
        return self.type.__name__

    @abstractmethod
    def read(self, text: str, opening: Opening) -> T:
        """The value that `text` names."""

    def spelled(self, text: str, flags: Mapping[str, str]) -> str:
        """The text with what the flags of `reading` set, so that a request holds all that decides its value."""
        return text

    @abstractmethod
    def identity(self, value: T) -> Mapping[str, Any]:
        """All that decides what a method computes from it, as JSON."""

    @abstractmethod
    def label(self, value: T) -> str:
        """What a reader calls it, in a few words."""

    @abstractmethod
    def sample(self, number: int, least: int) -> T:
        """A small value for tests, with at least `least` units where it has units; other numbers, other values."""

    def text(self, value: T) -> str:
        """Where it comes from, in one line of a report."""
        return self.label(value)

    def limited(self, value: T, limit: int) -> T:
        """At most `limit` of its units."""
        return value

    def identified(self, value: T) -> bool:
        """Whether `identity` tells any two different values apart."""
        return True

    def outlined(self, text: str, opening: Opening) -> Outline | None:
        """What reading this text will open, known before a weight is read; None for what needs little memory."""
        return None

    def shown(self, value: T) -> Sequence[Examples]:
        """What a model is shown of it."""
        return ()

    def empty(self, value: T) -> bool:
        """Whether it holds nothing to work on."""
        return False

    def device(self, value: T) -> str:
        """Where it computes; empty for what does not."""
        return ""

    def organism(self, value: str | T) -> Organism | None:
        """The organism that a text or value names, so that it can bring the other inputs."""
        return None

    def base(self, value: T) -> T | None:
        """What an adapter was merged into to make it."""
        return None

    def brought(self, organism: Organism, part: str) -> T | None:
        """What an organism holds for this kind."""
        value = getattr(organism, part) if part and organism.brings(part) else None
        return value if isinstance(value, self.type) else None


@dataclass(frozen=True)
class Input:
    """One parameter of a method that must, or may, be supplied."""

    parameter: str
    kind: Kind[Any]
    meaning: Meaning
    flag: str
    required: bool
    several: bool
    use: str = ""
    """What this method does with it, in one sentence."""

    @property
    def help(self) -> str:
        """One sentence for the command line."""
        optional = "" if self.required else " May be left out."
        several = ", several separated by spaces" if self.several else ""
        text = self.meaning.text
        use = f" {self.use}" if self.use else ""
        return f"{text[:1].upper()}{text[1:]}: {self.kind.form}{several}.{use}{optional}"

    def values(self, value: Any) -> Sequence[Any]:
        """The single values behind this input."""
        return value if self.several else (value,)

    def limited(self, value: Any, limit: int) -> Any:
        """At most `limit` units of every single value."""
        cut = tuple(self.kind.limited(single, limit) for single in self.values(value))
        return cut if self.several else cut[0]

    def check(self, value: Any) -> None:
        """Refuse a value of another kind."""
        wanted = f"a sequence of {self.kind.name}" if self.several else self.kind.name
        if self.several and not (isinstance(value, Sequence) and not isinstance(value, str)):
            raise BadInput(f"{self.flag}: {type(value).__name__} given, {wanted} expected")
        for single in self.values(value):
            if not isinstance(single, self.kind.type):
                raise BadInput(f"{self.flag}: {type(single).__name__} given, {wanted} expected")
            if self.kind.empty(single):
                raise BadInput(f"{self.flag}: empty; give {self.meaning.text}")


def refuse_unknown(flags: Iterable[str], inputs: Sequence[Input], place: str) -> None:
    """Refuse a flag that none of these inputs has."""
    allowed = [each.flag for each in inputs]
    for flag in flags:
        if flag not in allowed:
            raise BadInput(f"{place} takes no input {flag!r}; it takes {', '.join(allowed) or 'none'}")


def kinds() -> Mapping[type, Kind[Any]]:
    """All kinds by their type: those that come with glasshouse, and those of installed packages."""
    return {**_own(), **installed()}


@cache
def installed() -> Mapping[type, Kind[Any]]:
    """The kinds of other packages."""
    every = dict(_own())
    for point in entry_points(group="glasshouse.kinds"):
        kind = point.load()
        if not isinstance(kind, Kind):
            raise TypeError(f"glasshouse.kinds: {point.value} is {type(kind).__name__}, expected a Kind instance")
        if kind.type in every or kind.flag in {other.flag for other in every.values()}:
            raise TypeError(f"glasshouse.kinds: {point.value} clashes with a kind that exists ({kind.name})")
        every[kind.type] = kind
    return {type_: kind for type_, kind in every.items() if type_ not in _own()}


def _own() -> Mapping[type, Kind[Any]]:
    return {kind.type: kind for kind in import_module("glasshouse.engine.kinds").KINDS}


def inputs_of(function: Callable[..., Any], uses: Mapping[str, str] = MappingProxyType({})) -> tuple[Input, ...]:
    """What a function must be supplied with, read off its signature; a parameter of no known kind is refused."""
    place, hints = function.__name__, get_type_hints(function, include_extras=True)
    inputs: list[Input] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "options":
            continue
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TypeError(f"{place}: *{name} cannot be supplied; write Sequence[…] for several values")
        if name not in hints:
            raise TypeError(f"{place}: the parameter {name!r} has no type; its type says what must be supplied")
        kind, meaning, optional, several = _read_hint(hints[name], f"{place}: the parameter {name!r}")
        flag = kind.flag if meaning is None else name.replace("_", "-")
        required = not optional and parameter.default is inspect.Parameter.empty
        inputs.append(Input(name, kind, meaning or kind.meaning, flag, required, several, uses.get(name, "")))
    for name in uses:
        if name not in (each.parameter for each in inputs):
            raise TypeError(f"{place}: uses tells of {name!r}, which is no parameter")
    for flag in (each.flag for each in inputs):
        same = [each.parameter for each in inputs if each.flag == flag]
        if len(same) > 1:
            raise TypeError(
                f"{place}: the parameters {listed(same)} are both --{flag}; say what each means: "
                'Annotated[Subject, "the model it was fine-tuned from"]'
            )
        if flag in RESERVED:
            raise TypeError(f"{place}: --{flag} is a flag of the command itself; give the parameter another name")
    return tuple(inputs)


def _read_hint(hint: Any, place: str) -> tuple[Kind[Any], Meaning | None, bool, bool]:
    """Kind, meaning (None: the kind's own), whether it may be None, whether there are several."""
    meaning, optional, several = None, False, False
    while True:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            hint, *notes = arguments
            meanings = [Meaning(note) if isinstance(note, str) else note for note in notes]
            meaning = next((note for note in meanings if isinstance(note, Meaning)), meaning)
            if meaning is None or not meaning.text.strip():
                raise TypeError(f"{place}: Annotated says nothing of what it means; write a sentence behind the type")
        elif origin in (Union, types.UnionType) and type(None) in arguments and len(arguments) == 2:
            optional, hint = True, next(argument for argument in arguments if argument is not type(None))
        elif origin in (Sequence, list, tuple) and not several and arguments[1:] in ((), (Ellipsis,)):
            several, hint = True, arguments[0]
        else:
            break
    # A package may define its kind and its method in one module: its kinds are read only where ours do not answer.
    kind = _own().get(hint) or installed().get(hint)
    if kind is None:
        name, allowed = getattr(hint, "__name__", str(hint)), ", ".join(kind.name for kind in kinds().values())
        raise TypeError(
            f"{place} is {name}, which is no kind of input; kinds are {allowed} (entry points: glasshouse.kinds)"
        )
    return kind, meaning, optional, several
