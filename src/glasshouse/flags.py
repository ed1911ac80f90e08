"""Which flags does each command take? Derived from dataclasses and from the inputs of methods, never written twice."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from glasshouse.engine.audit import chosen
from glasshouse.engine.audit_plan import EXAMINED, Methods
from glasshouse.engine.binding import Request, bind_options
from glasshouse.engine.catalogue import Depth
from glasshouse.engine.cluster import address_of
from glasshouse.engine.inputs import Input, refuse_unknown
from glasshouse.engine.method import Method
from glasshouse.engine.opening import Opening
from glasshouse.forms import BATCH, GROWS, Column, parsed
from glasshouse.model.batching import AUTO, Auto
from glasshouse.values.codec import pack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

MODEL = "Folder, hub name or organism:NAME"
JSON: Column = ("json", bool, False, "Print JSON and nothing else.", None)
OPENING: Column = ("opening", Opening, Opening(), "How models are opened.", None)
SCREENS = ("runs", "on", "json")
"""Common flags that a screen has as a whole."""
TYPED = ("download", "remote_code")
"""Permissions that no file may give: it may be a stranger's."""
NAME: Column = ("name", str, MISSING, "An organism's name.", "ORGANISM")
FORMS: dict[str, tuple[Column, ...]] = {
    "anatomy": (
        ("model", str, MISSING, f"{MODEL}.", "MODEL"),
        OPENING,
        ("base", str | None, None, "Model that an adapter is merged into, if not the model that it names.", "MODEL"),
        ("prove", bool, False, "Load the weights and prove the anatomy on a forward pass.", None),
        JSON,
    ),
    "report": (("run", Path, MISSING, "The folder of a run or an audit, or one that holds many.", "RUN"), JSON),
    "compare": (
        *((name, Path, MISSING, "The folder of a run or an audit.", "RUN") for name in ("first", "second")),
        ("page", Path | None, None, "Write a page here that shows both side by side.", "FILE"),
        JSON,
    ),
    "view": (
        ("folder", Path, MISSING, "A folder of runs and audits.", "RUNS"),
        ("port", int, 0, "Port on 127.0.0.1; 0 takes any free one.", "PORT"),
        ("no_browser", bool, False, "Print the address and open no browser.", None),
    ),
    "export": (
        ("model", str, MISSING, f"{MODEL}.", "MODEL"),
        ("folder", Path, MISSING, "A new folder for the checkpoint.", "FOLDER"),
        ("patch", Path | None, None, "A patch file to apply first, or a run that made one (purify).", "PATCH"),
        OPENING,
    ),
    "organism list": (JSON,),
    "organism show": (NAME, JSON),
    "organism grow": (
        ("name", str, MISSING, "An organism's name.", "RECIPE"),
        ("folder", Path, MISSING, "A new folder for the checkpoint and its card.", "FOLDER"),
        ("seed", int | None, None, "Another seed, for a fresh organism of the kind.", "SEED"),
        ("within", float | None, None, "Minutes available; stop early if it would take longer.", "MINUTES"),
    ),
    "organism verify": (
        ("name", str, MISSING, "A name, or a folder that one was grown into.", "ORGANISM"),
        ("share", float, 1.0, "Fraction of the examples to measure on.", "FRACTION"),
        JSON,
    ),
}
"""Commands that take the same flags whatever is typed."""


def read(name: str, rest: Sequence[str]) -> Any:
    """What was typed after one of these commands."""
    return parsed(name, rest, *FORMS[name])


def run(method: Method[Finding], rest: Sequence[str]) -> tuple[Any, Request]:
    """The flags of one method, and the request they make."""
    saved = _saved(rest, method.name, method.inputs)
    form = parsed(f"run {method.name}", rest, *_of_run(method, saved))
    values = {name: value for name, value in pack(getattr(form, method.name))[0].items() if name != "is"}
    return form, _requested(saved, form, method.inputs, values)


def audit(rest: Sequence[str]) -> tuple[Any, Request]:
    """The flags of an audit: every input that any method takes."""
    inputs = Methods.load().inputs()
    saved = _saved(rest, "audit", inputs)
    depth, batch_size = _chosen(saved, _from(rest))
    form = parsed("audit", rest, *_of_audit(inputs, saved, depth, batch_size))
    if getattr(form, EXAMINED) is None:
        raise BadInput("audit needs a model: glasshouse audit MODEL, for example glasshouse audit organism:hijack-logo")
    options = {"depth": form.depth} | ({} if form.batch_size is None else {"batch_size": form.batch_size})
    chosen(options)
    return form, _requested(saved, form, inputs, options)


def screen(rest: Sequence[str]) -> Any:
    """Flags of the screen itself; those of its audits stand on the lines of its list."""
    return parsed("screen", rest, *_of_screen())


def every() -> dict[str, tuple[Column, ...]]:
    """All commands that have flags, each with its own: what a shell completes."""
    methods = Methods.load()
    runs = {f"run {method.name}": _of_run(method, Request(method.name)) for method in methods.loaded}
    audits = _of_audit(methods.inputs(), Request("audit"), "standard", None)
    return {**FORMS, "run": _common(Request("run")), **runs, "audit": audits, "screen": _of_screen()}


def _of_run(method: Method[Finding], saved: Request) -> tuple[Column, ...]:
    bound = bind_options(method, saved.options)
    if saved.options.get("batch_size") == AUTO:
        bound = replace(bound, batch_size=AUTO)
    options = (method.name, method.options, bound, "", None)
    return (*_inputs(method.inputs, saved), options, *_common(saved))


def _of_audit(
    inputs: Sequence[Input], saved: Request, depth: Depth, batch_size: int | Auto | None
) -> tuple[Column, ...]:
    return (
        *_inputs(inputs, saved, positional=EXAMINED),
        ("depth", Depth, depth, "quick takes about a minute on two cores for a small model; others run more.", None),
        ("batch_size", int | Auto | None, batch_size, f"Examples shown at once; more take more memory. {GROWS}", BATCH),
        ("fail_on", Literal["inconclusive", "concern", "fail", "never"] | None, None,
         "Exit with 1 from this verdict on; below it with 0, or with 3 if a judge that ran gave no answer.", None),
        *_common(saved),
    )  # fmt: skip


def _of_screen() -> tuple[Column, ...]:
    file = ("file", Path, MISSING, "A list: on each line what one would type after glasshouse audit.", "FILE")
    return (file, *(column for column in _common(Request("screen")) if column[0] in SCREENS))


def _inputs(inputs: Sequence[Input], saved: Request, positional: str = "") -> list[Column]:
    """A flag for every input; what a file says is its default."""
    columns: list[Column] = []
    for each in inputs:
        given = saved.inputs.get(each.flag)
        kind: Any = tuple[str, ...] if each.several else str | None
        default: Any = (given or ()) if each.several else (given[0] if given else None)
        kind = tyro.conf.Positional[kind] if each.flag == positional else kind
        columns.append((_column(each.flag), kind, default, each.help, each.kind.metavar))
    reading = {flag: text for each in inputs for flag, text in each.kind.reading.items()}
    return columns + [(_column(flag), str | None, None, text, "NAME") for flag, text in reading.items()]


def _saved(rest: Sequence[str], method: str, inputs: Sequence[Input]) -> Request:
    """What `--from` names holds where no flag says otherwise."""
    file = _from(rest)
    saved = Request.read(file) if file else Request(method)
    if saved.method != method:
        raise BadInput(f"--from {file}: that file asks {saved.method}, the command says {method}")
    refuse_unknown(saved.inputs, inputs, f"--from {file}: {method}")
    for each in inputs:
        texts = saved.inputs.get(each.flag, ("",))
        if len(texts) != 1 and not each.several:
            raise BadInput(f"--from {file}: {each.flag} has {len(texts)} values; it takes one")
    return saved


def _chosen(saved: Request, file: Path | None) -> tuple[Depth, int | Auto | None]:
    """What the file says of an audit's options."""
    try:
        return chosen(saved.options)
    except BadInput as problem:
        raise BadInput(f"--from {file}: {problem}") from None


def _column(flag: str) -> str:
    return flag.replace("-", "_")


def _common(saved: Request) -> tuple[Column, ...]:
    """Flags of every question."""
    opening = replace(saved.opening, **dict.fromkeys(TYPED, False))
    return (
        ("opening", Opening, opening, "How models are opened.", None),
        ("limit", int | None, saved.limit, "Use only the first N examples of each set.", "N"),
        ("runs", Path, Path("runs"), "Folder that run folders are kept in.", "FOLDER"),
        ("on", str | None, None,
         "Where units of work run: ray (workers on this machine) or ray:HOST:PORT. Default: this process.", "PLACE"),
        ("dry_run", bool, False, "Print the bound question as a file that --from takes, and stop.", None),
        ("from", Path | None, None,
         "File that a dry run printed; flags override it. --download and --remote-code must always be typed.", "FILE"),
        JSON,
    )  # fmt: skip


def _requested(saved: Request, form: Any, inputs: Sequence[Input], options: dict[str, Any]) -> Request:
    _check_place(form)
    for name in TYPED:
        if getattr(saved.opening, name) and not getattr(form.opening, name):
            typed = f"--{name.replace('_', '-')}"
            raise BadInput(f"--from {form.from_}: it asks for {typed}, which no file may permit; type it as well")
    texts: dict[str, tuple[str, ...]] = {}
    readers: dict[str, str] = {}
    for each in inputs:
        value = getattr(form, _column(each.flag))
        reading = {flag: name for flag in each.kind.reading if (name := getattr(form, _column(flag)))}
        if value:
            written = tuple(value) if each.several else (value,)
            texts[each.flag] = tuple(each.kind.spelled(text, reading) for text in written)
        elif value is not None and not each.several:
            raise BadInput(f"--{each.flag}: empty; give {each.kind.form}")
        elif reading:
            readers = dict.fromkeys(reading, each.flag) | readers
    _refuse_unread(readers, [each for each in inputs if each.flag in texts])
    return Request(saved.method, texts, options, form.opening, form.limit)


def _refuse_unread(flags: Mapping[str, str], given: Sequence[Input]) -> None:
    """Refuse a flag that says how to read an input which is not there."""
    for flag, owner in flags.items():
        if not any(flag in each.kind.reading for each in given):
            raise BadInput(f"--{flag} says how --{owner} is read, which is not given; give it, or leave --{flag} out")


def _from(rest: Sequence[str]) -> Path | None:
    for place, word in enumerate(rest):
        if word == "--from" and place + 1 < len(rest):
            return Path(rest[place + 1])
        if word.startswith("--from="):
            return Path(word.removeprefix("--from="))
    return None


def _check_place(form: Any) -> None:
    """Refuse a place to work or to write that cannot be one, before anything is read."""
    if form.on is not None:
        address_of(form.on)
    if form.runs.is_file():
        raise BadInput(f"--runs {form.runs}: a file; name a folder")
