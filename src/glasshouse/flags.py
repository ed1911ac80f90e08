"""Which flags does each command take? Derived from dataclasses and from the inputs of methods, never written twice."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, field, fields, make_dataclass, replace
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from glasshouse.engine.audit import EXAMINED, Methods, chosen
from glasshouse.engine.binding import Request, bind_options
from glasshouse.engine.inputs import Input
from glasshouse.engine.method import Depth, Method
from glasshouse.engine.opening import Opening
from glasshouse.values.codec import pack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

Column = tuple[str, Any, Any, str, str | None]
"""Name, type, default, help and metavar of one flag; a default of MISSING makes it positional."""
MODEL = "Folder, hub name or organism:NAME"
JSON: Column = ("json", bool, False, "Print JSON and nothing else.", None)
OPENING: Column = ("opening", Opening, Opening(), "How models are opened.", None)
SCREENS = ("runs", "on", "json")
"""Common flags that a screen has as a whole."""
TYPED = ("download", "remote_code")
"""Permissions that no file may give: it may be a stranger's."""


def anatomy(rest: Sequence[str]) -> Any:
    prove = ("prove", bool, False, "Load the weights and prove the anatomy on a forward pass.", None)
    return _read("anatomy", rest, ("model", str, MISSING, f"{MODEL}.", "MODEL"), OPENING, prove, JSON)


def report(rest: Sequence[str]) -> Any:
    folder = ("run", Path, MISSING, "The folder of a run or an audit, or one that holds many.", "FOLDER")
    return _read("report", rest, folder, JSON)


def compare(rest: Sequence[str]) -> Any:
    folders = [(name, Path, MISSING, "The folder of a run or an audit.", "FOLDER") for name in ("first", "second")]
    page = ("page", Path | None, None, "Write a page here that shows both side by side.", "FILE")
    return _read("compare", rest, *folders, page, JSON)


def export(rest: Sequence[str]) -> Any:
    model = ("model", str, MISSING, f"{MODEL}.", "MODEL")
    folder = ("folder", Path, MISSING, "A new folder for the checkpoint.", "FOLDER")
    patch = ("patch", Path | None, None, "A patch file to apply first, or a run that made one (purify).", "PATCH")
    return _read("export", rest, model, folder, patch, OPENING)


def organism_list(rest: Sequence[str]) -> Any:
    return _read("organism list", rest, JSON)


def organism_show(rest: Sequence[str]) -> Any:
    return _read("organism show", rest, ("name", str, MISSING, "An organism's name.", "NAME"), JSON)


def organism_grow(rest: Sequence[str]) -> Any:
    return _read(
        "organism grow",
        rest,
        ("name", str, MISSING, "An organism's name.", "NAME"),
        ("folder", Path, MISSING, "A new folder for the checkpoint and its card.", "FOLDER"),
        ("seed", int | None, None, "Another seed, for a fresh organism of the kind.", "SEED"),
        ("within", float | None, None, "Minutes available; stop early if it would take longer.", "MINUTES"),
    )


def organism_verify(rest: Sequence[str]) -> Any:
    name = ("name", str, MISSING, "A name, or a folder that one was grown into.", "NAME")
    share = ("share", float, 1.0, "Fraction of the examples to measure on.", "FRACTION")
    return _read("organism verify", rest, name, share, JSON)


def run(method: Method[Finding], rest: Sequence[str]) -> tuple[Any, Request]:
    """The flags of one method, and the request they make."""
    saved = _saved(rest, method.name, method.inputs)
    options = ("options", method.options, bind_options(method, saved.options), "Options of this method.", None)
    try:
        form = _read(f"run {method.name}", rest, *_inputs(method.inputs, saved), options, *_common(saved))
    except BadInput as problem:
        raise _owner(problem, method) from None
    values = {name: value for name, value in pack(form.options)[0].items() if name != "is"}
    return form, _requested(saved, form, method.inputs, values)


def audit(rest: Sequence[str]) -> tuple[Any, Request]:
    """The flags of an audit: every input that any method takes."""
    inputs = Methods.load().inputs()
    saved = _saved(rest, "audit", inputs)
    depth, batch_size = _chosen(saved, _from(rest))
    form = _read(
        "audit", rest, *_inputs(inputs, saved, positional=EXAMINED),
        ("depth", Depth, depth, "quick takes about a minute on two cores for a small model; others run more.", None),
        ("batch_size", int | None, batch_size, "Examples shown at once; more needs more memory.", "N"),
        ("fail_on", Literal["inconclusive", "concern", "fail", "never"] | None, None,
         "Exit with 1 from this verdict on; below it with 0, or with 3 if a judge that ran gave no answer.", None),
        *_common(saved),
    )  # fmt: skip
    if getattr(form, EXAMINED) is None:
        raise BadInput("audit needs a model: glasshouse audit MODEL, for example glasshouse audit organism:hijack-logo")
    options = {"depth": form.depth} | ({} if form.batch_size is None else {"batch_size": form.batch_size})
    chosen(options)
    return form, _requested(saved, form, inputs, options)


def screen(rest: Sequence[str]) -> Any:
    """Flags of the screen itself; those of its audits stand on the lines of its list."""
    file = ("file", Path, MISSING, "A list: on each line what one would type after glasshouse audit.", "FILE")
    return _read("screen", rest, file, *(column for column in _common(Request("screen")) if column[0] in SCREENS))


def _inputs(inputs: Sequence[Input], saved: Request, positional: str = "") -> list[Column]:
    """A flag for every input; what a file says is its default."""
    columns: list[Column] = []
    for each in inputs:
        given = saved.inputs.get(each.flag)
        kind: Any = tuple[str, ...] if each.several else str | None
        default: Any = (given or ()) if each.several else (given[0] if given else None)
        kind = tyro.conf.Positional[kind] if each.flag == positional else kind
        columns.append((_column(each.flag), kind, default, each.help, each.kind.metavar))
    return columns


def _saved(rest: Sequence[str], method: str, inputs: Sequence[Input]) -> Request:
    """What `--from` names holds where no flag says otherwise."""
    file = _from(rest)
    saved = Request.read(file) if file else Request(method)
    if saved.method != method:
        raise BadInput(f"--from {file}: that file asks {saved.method}, the command says {method}")
    known = {each.flag: each for each in inputs}
    for flag, texts in saved.inputs.items():
        if flag not in known:
            raise BadInput(f"--from {file}: {method} takes no {flag!r}; it takes {', '.join(known) or 'no inputs'}")
        if len(texts) != 1 and not known[flag].several:
            raise BadInput(f"--from {file}: {flag} has {len(texts)} values; it takes one")
    return saved


def _chosen(saved: Request, file: Path | None) -> tuple[Depth, int | None]:
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
    for name in TYPED:
        if getattr(saved.opening, name) and not getattr(form.opening, name):
            typed = f"--{name.replace('_', '-')}"
            raise BadInput(f"--from {form.from_}: it asks for {typed}, which no file may permit; type it as well")
    texts: dict[str, tuple[str, ...]] = {}
    for each in inputs:
        value = getattr(form, _column(each.flag))
        if value:
            texts[each.flag] = tuple(value) if each.several else (value,)
        elif value is not None and not each.several:
            raise BadInput(f"--{each.flag}: empty; give {each.kind.form}")
    return Request(saved.method, texts, options, form.opening, form.limit)


def _from(rest: Sequence[str]) -> Path | None:
    for place, word in enumerate(rest):
        if word == "--from" and place + 1 < len(rest):
            return Path(rest[place + 1])
        if word.startswith("--from="):
            return Path(word.removeprefix("--from="))
    return None


def _read(name: str, rest: Sequence[str], *columns: Column) -> Any:
    settings = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    specified: list[tuple[str, Any, Any]] = []
    for column, kind, default, help_text, metavar in columns:
        annotation = tyro.conf.Positional[kind] if default is MISSING else kind
        extra = tyro.conf.arg(help=help_text, name=column.replace("_", "-"), metavar=metavar)
        attribute = f"{column}_" if column == "from" else column  # a flag may be called `from`, a field may not
        nested = column in ("options", "opening")
        declared = kind if nested else Annotated[annotation, extra]
        specified.append((attribute, declared, field() if default is MISSING else field(default=default)))
    _refuse_repeated(rest)
    form, output = make_dataclass("Flags", specified, frozen=True), StringIO()
    try:
        with redirect_stderr(output):
            return tyro.cli(form, args=list(rest), prog=f"glasshouse {name}", config=settings)
    except SystemExit as ended:
        if not ended.code:  # --help
            sys.stdout.flush()  # a reader that has left is noticed now and not when the interpreter ends
            raise
    raise BadInput(f"{_first_words(output.getvalue())}; see glasshouse {name} --help")


def _refuse_repeated(rest: Sequence[str]) -> None:
    """A flag that is typed twice would silently take its last value."""
    typed = Counter(word.partition("=")[0] for word in rest if word.startswith("--"))
    for flag, count in typed.items():
        if count > 1:
            raise BadInput(f"{flag} is given {count} times; give it once (several values stand behind one flag)")


def _owner(problem: BadInput, method: Method[Finding]) -> BadInput:
    """A flag of another method is named with its owner."""
    unknown = re.search(r"Unrecognized options?: (--[\w-]+)", str(problem))
    if not unknown:
        return problem
    flag = unknown[1].removeprefix("--")
    owners = [
        other.name for other in Methods.load().loaded
        if flag in (name.name.replace("_", "-") for name in fields(other.options))
        or flag in (each.flag for each in other.inputs)
    ]  # fmt: skip
    if not owners:
        return problem
    return BadInput(
        f"--{flag} belongs to {' and '.join(owners)}, not to {method.name}; see glasshouse run {method.name} --help"
    )


def _first_words(box: str) -> str:
    """What is wrong, out of what tyro draws around it: a box, or where there is no UTF-8 a title underlined; coloured
    or not."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    drawn = plain[1:] if plain[0].startswith("╭") else plain[2:]
    lines = (line.strip(" │").rstrip(".") for line in drawn)
    return " ".join(takewhile(lambda line: line.strip("─-╰╯"), lines))
