"""How does a plain function become a method that can be listed, bound, run and recorded?

    @method(needs="activations", depth="quick")
    def lens(subject: Subject, examples: Examples, options: Options = Options()) -> LensFinding:
        \"\"\"Read every layer as if it were the last.\"\"\"

The docstring of its file is its page (`page.py`); the types of its parameters say what must be supplied (`inputs.py`);
its Options, a frozen dataclass of at most eight documented fields, become flags. The function stays a function: its
signature and docstring are what `help`, completion and type checkers see.
"""

import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast, get_args, get_type_hints

from glasshouse.engine import catalogue
from glasshouse.engine.catalogue import Depth, Entry, Needs, VerdictRole
from glasshouse.engine.inputs import AUDITS, RESERVED, Input, inputs_of
from glasshouse.engine.page import Page
from glasshouse.engine.passes import USUAL, Passes
from glasshouse.engine.units import rewind
from glasshouse.model.batching import AUTO, out_of_memory, repeating
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

P = ParamSpec("P")
F = TypeVar("F", bound=Finding)
MOST_OPTIONS = 8


@dataclass(frozen=True)
class Method(Generic[F]):
    """A question, what must be supplied to answer it, and the function that does."""

    function: Callable[..., F]
    page: Page
    inputs: tuple[Input, ...]
    options: type[Any]
    finding: type[F]
    needs: Needs
    role: VerdictRole
    """What its verdict counts for in an audit. A judge looks for something bad and passes where it finds nothing; a
    witness may raise concern and never clears; an adviser describes or mends and has no say about trust."""
    depth: Depth
    """The shallowest audit that includes it."""
    small: Any
    """Options under which it answers in seconds, for tests."""
    least: int
    """The fewest examples it accepts."""
    passes: Passes
    """How often it shows an example to the model, under its default options."""

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def option_flags(self) -> tuple[str, ...]:
        """Its options as the command line has them."""
        return _flags(self.options)

    @property
    def in_batches(self) -> bool:
        """Whether it has an option for how many examples to show at once."""
        return "batch-size" in self.option_flags

    def answer(self, values: Mapping[str, Any], options: Any = None) -> F:
        """The finding. `values` are by flag, as the command line has them."""
        given = {each.parameter: values[each.flag] for each in self.inputs if each.flag in values}
        return self.function(**given, options=self.options() if options is None else options)

    @property
    def source(self) -> str:
        """SHA-256 of its file and of what the files beside it share, data too: other code, other results. All that it
        uses of glasshouse is in the provenance."""
        file = Path(inspect.getfile(inspect.unwrap(self.function)))
        running = hashlib.sha256(file.read_bytes())
        for shared in sorted([*file.parent.glob("_*.py"), *file.parent.glob("*.json")]):
            running.update(shared.read_bytes())
        return running.hexdigest()


def method(
    *, needs: Needs = Entry.needs, role: VerdictRole = Entry.role, depth: Depth = Entry.depth, small: Any = None,
    least: int = 1, passes: Passes | None = None, uses: Mapping[str, str] | None = None,
) -> Callable[[Callable[P, F]], Callable[P, F]]:  # fmt: skip
    """Make a method of a function, and refuse one that does not keep to the form. `uses` says by parameter, in one
    sentence, what the method does with that input; help and documentation show it."""

    def wrap(function: Callable[P, F]) -> Callable[P, F]:
        name, signature, hints = function.__name__, inspect.signature(function), get_type_hints(function)
        for word, allowed in ((needs, get_args(Needs)), (role, get_args(VerdictRole)), (depth, get_args(Depth))):
            if word not in allowed:
                raise TypeError(f"{name}: {word!r} is none of {', '.join(allowed)}")
        _check_form(signature, hints, name)
        options_type, inputs, page = cast(type[Any], hints["options"]), inputs_of(function, uses or {}), _page(function)
        _check_option_flags(options_type, inputs, name)

        @functools.wraps(function)
        def ask(*args: P.args, **kwargs: P.kwargs) -> F:
            _check(signature.bind(*args, **kwargs), inputs, options_type)
            try:
                return repeating(lambda: function(*args, **kwargs), again=rewind)
            except (RuntimeError, MemoryError) as problem:
                if not out_of_memory(problem):
                    raise
                line = (str(problem).splitlines() or [""])[0]
                raise BadInput(
                    f"{name}: the device has not enough memory for one example at a time ({line}); give smaller images "
                    "(--max-pixels), a smaller --dtype or more devices (--device auto)"
                ) from problem

        ask.__doc__ = _help(function, page, inputs)
        ask.__dict__["method"] = Method(
            ask, page, inputs, options_type, hints["return"], needs, role, depth,
            options_type() if small is None else small, least,
            passes or USUAL[needs],
        )  # fmt: skip
        return ask

    return wrap


def as_method(method: Method[Finding] | Callable[..., Finding] | str) -> Method[Finding]:
    """By name, as the decorated function, or as it is."""
    if isinstance(method, str):
        return load(method)
    described = method if isinstance(method, Method) else getattr(method, "method", None)
    if not isinstance(described, Method):
        name = getattr(method, "__name__", type(method).__name__)
        raise BadInput(f"{name}: not a method; decorate it with @glasshouse.method(…)")
    return described


def load(name: str) -> Method[Finding]:
    """Import the one file that holds this method."""
    entry = catalogue.find(name)
    return as_method(getattr(importlib.import_module(entry.module), entry.name))


def at_least(options: object, **least: int) -> None:
    """Refuse options below their least, by the name of their flag."""
    for name, bound in least.items():
        value = getattr(options, name)
        if value != AUTO and value < bound:
            raise BadInput(f"--{name.replace('_', '-')} {value}: must be at least {bound}")


def _check(given: inspect.BoundArguments, inputs: tuple[Input, ...], options: type[Any]) -> None:
    """Refuse values of another kind, empty values and options of another method."""
    for each in inputs:
        value = given.arguments.get(each.parameter)
        if value is not None or each.required:
            each.check(value)
    chosen = given.arguments.get("options")
    if chosen is not None and not isinstance(chosen, options):
        raise BadInput(f"options: {type(chosen).__name__} given, {options.__module__}.{options.__qualname__} expected")


def _check_form(signature: inspect.Signature, hints: Mapping[str, Any], name: str) -> None:
    """Refuse a function without Options, their default or the type of its finding."""
    for wanted in ("options", "return"):
        if wanted not in hints:
            raise TypeError(f"{name}: {wanted} has no type; write options: Options = Options() and -> YourFinding")
    if signature.parameters["options"].default is inspect.Parameter.empty:
        raise TypeError(f"{name}: options has no default; write options: Options = Options()")
    options = hints["options"]
    if not (is_dataclass(options) and options.__dataclass_params__.frozen):  # pyright: ignore[reportAttributeAccessIssue]
        raise TypeError(f"{name}: options must be a frozen dataclass")


def _check_option_flags(options: type[Any], inputs: tuple[Input, ...], name: str) -> None:
    """Refuse a method with too many options, or one of a name that is taken."""
    flags = _flags(options)
    if len(flags) > MOST_OPTIONS:
        raise TypeError(f"{name}: {len(flags)} options; at most {MOST_OPTIONS}, so that its help stays readable")
    for flag in flags:
        if flag in RESERVED - AUDITS or flag in (each.flag for each in inputs):
            raise TypeError(f"{name}: the option --{flag} has the name of an input or of the command's own flag")


def _flags(options: type[Any]) -> tuple[str, ...]:
    return tuple(field.name.replace("_", "-") for field in fields(options))


def _help(function: Callable[..., Any], page: Page, inputs: tuple[Input, ...]) -> str:
    """What `help(gh.methods.NAME)` prints below the signature."""
    own = inspect.getdoc(function) or ""
    parts = [
        page.question,
        *([own] if not own.startswith(page.question) else []),
        "\n".join(["Inputs:", *(f"    {each.parameter}: {each.help}" for each in inputs)]),
        f"How to read it: {page.reading}",
        f"When it misleads: {page.misleading}",
    ]
    return "\n\n".join(parts)


def _page(function: Callable[..., Any]) -> Page:
    """Of the file; where a file holds several methods, each has its own page for a docstring."""
    module = inspect.getmodule(function)
    try:
        return Page.of(
            inspect.getdoc(function) or "", (inspect.getdoc(module) or "") if module else "", function.__name__
        )
    except ValueError as problem:
        raise TypeError(str(problem)) from None
