"""How does a plain function become a method that can be listed, bound, run and recorded?

    @method(question="What does each layer already say?", paper="arXiv:2410.02762", needs="activations")
    def lens(subject: Subject, examples: Examples, options: Options = Options()) -> LensFinding: ...

The types of its parameters say what must be supplied; its Options, a frozen dataclass of at most eight documented
fields, become flags.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints

import torch

from glasshouse.data.examples import Examples
from glasshouse.engine import catalogue
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

P = ParamSpec("P")
F = TypeVar("F", bound=Finding)
Needs = Literal["weights", "activations", "gradients", "endpoint"]
Role = Literal["judge", "witness", "adviser"]
Depth = Literal["quick", "standard", "thorough"]
MOST_OPTIONS = 8


@dataclass(frozen=True)
class Method(Generic[P, F]):
    """A question, and the function that answers it. Calling it calls the function."""

    name: str
    question: str
    paper: str
    needs: Needs
    function: Callable[P, F]
    role: Role = "adviser"
    """What its verdict counts for in an audit. A judge looks for something bad and passes where it finds nothing; a
    witness may raise concern and never clears; an adviser describes or mends, and says nothing about trust."""
    depth: Depth = "standard"
    """The shallowest audit that asks it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> F:
        try:
            return self.function(*args, **kwargs)
        except torch.OutOfMemoryError as problem:
            first = (str(problem).splitlines() or [""])[0]
            smaller = "a smaller --batch-size, " if self.in_batches else ""
            raise BadInput(
                f"{self.name}: the device has not enough memory ({first}); give {smaller}fewer examples (--limit), "
                "a smaller --dtype or more devices (--device auto)"
            ) from problem

    @property
    def options(self) -> type[Any]:
        """The dataclass of its options."""
        return self._hints["options"]

    @property
    def in_batches(self) -> bool:
        """Whether it can be told how many examples to show at once."""
        return "batch_size" in (one.name for one in fields(self.options))

    @property
    def finding(self) -> type[F]:
        return self._hints["return"]

    @property
    def subjects(self) -> dict[str, bool]:
        """Names of its models, and whether each must be given."""
        return self._parameters(Subject)

    @property
    def examples(self) -> dict[str, bool]:
        """Names of its sets of examples, and whether each must be given."""
        return self._parameters(Examples)

    @property
    def page(self) -> str:
        """The docstring of its file: the question, the paper, the steps, how to read it, when it misleads."""
        return inspect.getdoc(inspect.getmodule(self.function)) or ""

    @property
    def source(self) -> str:
        """SHA-256 of its file and of what the files beside it share, data too: other code, other results. All that it
        uses of glasshouse is in the provenance."""
        file = Path(inspect.getfile(inspect.unwrap(self.function)))
        running = hashlib.sha256(file.read_bytes())
        for shared in sorted([*file.parent.glob("_*.py"), *file.parent.glob("*.json")]):
            running.update(shared.read_bytes())
        return running.hexdigest()

    @property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.function)

    def _parameters(self, kind: type) -> dict[str, bool]:
        signature = inspect.signature(self.function)
        wanted: dict[str, bool] = {}
        for name, hint in self._hints.items():
            alone = hint is kind
            if name != "return" and (alone or kind in getattr(hint, "__args__", ())):
                wanted[name] = alone and signature.parameters[name].default is inspect.Parameter.empty
        return wanted


def method(
    *, question: str, paper: str = "", needs: Needs = "activations", role: Role = "adviser", depth: Depth = "standard"
) -> Callable[[Callable[P, F]], Method[P, F]]:  # fmt: skip
    """Make a method of a function, and refuse one that does not keep to the form."""

    def wrap(function: Callable[P, F]) -> Method[P, F]:
        made = Method(function.__name__, question, paper, needs, function, role, depth)
        options = made.options
        if not (is_dataclass(options) and options.__dataclass_params__.frozen):  # pyright: ignore[reportAttributeAccessIssue]
            raise TypeError(f"{made.name}: options must be a frozen dataclass")
        if len(fields(options)) > MOST_OPTIONS:
            raise TypeError(
                f"{made.name}: {len(fields(options))} options; at most {MOST_OPTIONS}, so that its help stays readable"
            )
        return made

    return wrap


def at_least(options: object, **least: int) -> None:
    """Refuse options below their least, by the name of their flag."""
    for name, bound in least.items():
        given = getattr(options, name)
        if given < bound:
            raise BadInput(f"--{name.replace('_', '-')} {given}: must be at least {bound}")


def load(name: str) -> Method[..., Finding]:
    """Import the one file that holds this method."""
    entry = catalogue.find(name)
    return getattr(importlib.import_module(entry.module), entry.name)
