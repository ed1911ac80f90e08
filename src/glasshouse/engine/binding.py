"""How do words become values? Every input of a method is read by its kind; what the user leaves out an organism brings.

    request = Request("recovery", {"model": ("organism:hijack-logo",)}, {"grid": 3})
    values = bind(load("recovery"), request)           by flag: an opened model, its base, its examples, its pairs

A Request is plain data: a dry run prints it, and `--from` reads it.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glasshouse.data.strangers import read_object, reason
from glasshouse.engine.inputs import Input
from glasshouse.engine.kinds import BASE, SubjectKind
from glasshouse.engine.method import Method
from glasshouse.engine.opening import Opening, on_base
from glasshouse.model.batching import AUTO
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import Organism
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

Texts = tuple[str, ...]
Before = Callable[["Request", Mapping[str, Any]], None]
MOST_REQUEST = 2**20
"""Bytes of a request's file."""


@dataclass(frozen=True)
class Request:
    """A question with everything it needs, as text."""

    method: str
    inputs: Mapping[str, Texts] = field(default_factory=dict[str, Texts])
    """By flag, what the user wrote: one text, or several for an input that takes several."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    opening: Opening = Opening()
    limit: int | None = None

    @classmethod
    def read(cls, file: Path) -> "Request":
        """What `as_tree` wrote."""
        try:
            tree = read_object(file, MOST_REQUEST)
        except (OSError, ValueError) as problem:
            raise BadInput(f"{file}: not a readable request ({reason(problem)}); a dry run prints one") from None
        return cls.of(tree, str(file))

    @classmethod
    def of(cls, tree: Any, place: str) -> "Request":
        """From what `as_tree` gave; `place` is named in errors."""
        plain = {name: value for name, value in tree.items() if name != "options"} if isinstance(tree, dict) else tree
        try:
            form = unpack(_RequestForm, plain)
        except BadInput as problem:
            raise BadInput(f"{place}: {str(problem).replace('_RequestForm', 'the request')}") from None
        options = tree.get("options", {})
        if not isinstance(options, dict):
            raise BadInput(f"{place}: options must be an object")
        inputs = {flag: (text,) if isinstance(text, str) else text for flag, text in form.inputs.items()}
        return cls(form.method, inputs, options, form.opening, form.limit)


@dataclass(frozen=True)
class _RequestForm:
    """A Request as a file holds it, options apart: the method decides their types."""

    method: str
    inputs: Mapping[str, str | Texts] = field(default_factory=dict[str, str | Texts])
    opening: Opening = Opening()
    limit: int | None = None


def as_tree(request: Request) -> dict[str, Any]:
    """The request as a file holds it, for `Request.read`."""
    tree: dict[str, Any] = pack(request)[0]
    tree.pop("is")
    tree["opening"].pop("is")
    tree["inputs"] = {flag: texts[0] if len(texts) == 1 else texts for flag, texts in tree["inputs"].items()}
    return tree


def bind_options(method: Method[Finding], given: Mapping[str, Any]) -> Any:
    """The method's options dataclass; an unknown or ill-typed option is refused by name. A `batch_size` that finds
    itself begins with the method's own."""
    own = method.in_batches and given.get("batch_size") == AUTO
    try:
        return unpack(method.options, {name: value for name, value in given.items() if not own or name != "batch_size"})
    except BadInput as problem:
        raise BadInput(f"{method.name} {problem}") from None


def bind(
    method: Method[Finding], request: Request, values: Mapping[str, Any] | None = None, *, before: Before | None = None
) -> dict[str, Any]:
    """All inputs of a method, by flag."""

    def complete(request: Request, supplied: Mapping[str, Any]) -> None:
        """What is lacking is told before what is there is weighed or opened."""
        flags = supplied_flags(method.inputs, request, supplied)
        organism = None if request.opening.adapter else organism_of(method.inputs, request, dict.fromkeys(flags, ""))
        named = any(shelf.is_organism(text) for texts in request.inputs.values() for text in texts)
        if organism or not named:  # what is wrong with an organism's name or opening is told when it is read
            require(method, dict.fromkeys(flags), organism.name if organism else "")
        if before is not None:
            before(request, supplied)

    supplied = supply(method.inputs, request, values, before=complete)
    organism = organism_of(method.inputs, request, supplied)
    require(method, supplied, organism.name if organism else "")
    return supplied


def require(method: Method[Finding], values: Mapping[str, Any], organism: str = "") -> None:
    """Refuse, with the fix, what a method lacks, and what an organism did not bring."""
    for each in method.inputs:
        if each.required and each.flag not in values:
            kind = each.kind
            brought = f"; {organism} brings none" if organism else ""
            raise BadInput(
                f"{method.name} needs {each.meaning.text}: --{each.flag} {kind.metavar} ({kind.form}), "
                f"for example --{each.flag} {kind.example}{brought}"
            )


def supply(
    inputs: Sequence[Input], request: Request, values: Mapping[str, Any] | None = None, *, before: Before | None = None
) -> dict[str, Any]:
    """Read what was written, keep what is there as a value, and add what an organism or an adapter brings; by flag.
    `before` is called with the request and all that is quick to read, before what is slow is read."""
    if request.limit is not None and request.limit < 1:
        raise BadInput(f"--limit {request.limit}: must be at least 1")
    request, supplied = _on_base(inputs, request), dict(values or {})
    for each in inputs:
        if each.flag in supplied:
            each.check(supplied[each.flag])
    written = [each for each in inputs if each.flag in request.inputs and each.flag not in supplied]
    for slow in (False, True):  # a mistake in what is quick to read costs no waiting
        if slow and before is not None:
            before(request, supplied)
        for each in (each for each in written if each.kind.slow == slow):
            supplied[each.flag] = _read(each, request.inputs[each.flag], request.opening)
    for each in inputs:
        if each.flag not in supplied and not each.several:
            value = _brought(each, inputs, request, supplied)
            supplied |= {} if value is None else {each.flag: value}
    if request.limit is not None:
        for each in inputs:
            if each.flag in supplied:
                supplied[each.flag] = each.limited(supplied[each.flag], request.limit)
    return {each.flag: supplied[each.flag] for each in inputs if each.flag in supplied}


def opening_of(each: Input, opening: Opening) -> Opening:
    """How this input is opened: an adapter and a revision are those of the model that is examined."""
    return opening if each.flag == each.kind.flag else replace(opening, adapter=None, revision=None)


def supplied_flags(inputs: Sequence[Input], request: Request, supplied: Mapping[str, Any]) -> frozenset[str]:
    """The flags that will have a value, before what is slow is read: written, read, or brought by an organism or an
    adapter."""
    flags = {*request.inputs, *supplied}
    organism = None if request.opening.adapter else organism_of(inputs, request, dict.fromkeys(flags, ""))
    for each in inputs:
        part = each.meaning.organism
        if each.several or each.flag in flags:
            continue
        if (organism is not None and part and organism.brings(part)) or (request.opening.adapter and part == BASE):
            flags.add(each.flag)
    return frozenset(flags)


def _read(each: Input, texts: Texts, opening: Opening) -> Any:
    if not texts or (len(texts) > 1 and not each.several):
        raise BadInput(f"--{each.flag}: {len(texts)} values given, one expected")
    own = opening_of(each, opening)
    read = tuple(each.kind.read(text, own) for text in texts)
    return read if each.several else read[0]


def _brought(each: Input, inputs: Sequence[Input], request: Request, supplied: Mapping[str, Any]) -> Any:
    """What comes with the other inputs: from an organism its parts, from an adapter the model it is put on."""
    examined = supplied.get(each.kind.flag)
    if each.meaning.organism == BASE and isinstance(examined, each.kind.type):
        base = each.kind.base(examined)
        if base is not None:
            return base
    if request.opening.adapter:
        return None
    organism = organism_of(inputs, request, supplied)
    return each.kind.brought(organism, each.meaning.organism) if organism else None


def _on_base(inputs: Sequence[Input], request: Request) -> Request:
    """A request in which an adapter that was given as the model is put on its base: the base that was given, or that
    the adapter names."""
    flag = SubjectKind.flag
    texts, bases = request.inputs.get(flag, ()), request.inputs.get(BASE, ())
    if len(texts) != 1 or not any(each.flag == flag and not each.several for each in inputs):
        return request
    put = on_base(texts[0], bases[0] if len(bases) == 1 else None, request.opening)
    if put is None:
        return request
    others = {name: each for name, each in request.inputs.items() if name != BASE}
    return replace(request, inputs={**others, flag: (put[0],)}, opening=put[1])


def organism_of(inputs: Sequence[Input], request: Request, supplied: Mapping[str, Any]) -> Organism | None:
    """The first organism among the inputs."""
    for each in inputs:
        if each.flag in supplied and not each.several:
            value = request.inputs.get(each.flag, (supplied[each.flag],))[0]
            if organism := each.kind.organism(value):
                return organism
    return None


def command(method: Method[Finding], request: Request) -> str:
    """The command that asks just this of what the request names."""
    words, plain = ["glasshouse", "run", method.name], Opening()
    for each in method.inputs:
        texts = request.inputs.get(each.flag, ())
        words += [f"--{each.flag}", *texts] if texts else []
    for name, value in request.opening.settings.items():
        if value != getattr(plain, name):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    words += [] if request.limit is None else ["--limit", str(request.limit)]
    for name, value in request.options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
