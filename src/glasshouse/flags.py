"""Which flags does each command take? Made from dataclasses: a method's own Options, and how models are opened."""

import re
import sys
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, field, make_dataclass, replace
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from glasshouse.engine.audit import chosen
from glasshouse.engine.binding import Opening, Request, bind_options, flag
from glasshouse.engine.catalogue import catalogue
from glasshouse.engine.method import Depth, Method
from glasshouse.values.codec import pack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

Column = tuple[str, Any, Any, str]
"""Name, type, default and help of one flag; a default of MISSING makes it positional."""
MODEL = "Folder, hub name or organism:NAME"
JSON: Column = ("json", bool, False, "Print JSON and nothing else.")
OPENING: Column = ("opening", Opening, Opening(), "How models are opened.")
TYPED = ("download", "remote_code")
"""What a file cannot give leave to: it may be a stranger's."""


def anatomy(rest: Sequence[str]) -> Any:
    return _read(
        "anatomy",
        rest,
        ("model", str, MISSING, f"{MODEL}."),
        OPENING,
        ("prove", bool, False, "Load the weights and prove it."),
        JSON,
    )


def report(rest: Sequence[str]) -> Any:
    folder = ("run", Path, MISSING, "The folder of a run or an audit, or one that holds many.")
    return _read("report", rest, folder, JSON)


def compare(rest: Sequence[str]) -> Any:
    folders = [(name, Path, MISSING, "The folder of a run or an audit.") for name in ("first", "second")]
    page = ("page", Path | None, None, "Write a page here that shows both side by side.")
    return _read("compare", rest, *folders, page, JSON)


def export(rest: Sequence[str]) -> Any:
    folder = ("folder", Path, MISSING, "A new folder for the checkpoint.")
    patch = ("patch", Path | None, None, "A patch file to apply first, or a run that made one (purify).")
    return _read("export", rest, ("model", str, MISSING, f"{MODEL}."), folder, patch, OPENING)


def organism_list(rest: Sequence[str]) -> Any:
    return _read("organism list", rest, JSON)


def organism_show(rest: Sequence[str]) -> Any:
    return _read("organism show", rest, ("name", str, MISSING, "An organism's name."), JSON)


def organism_grow(rest: Sequence[str]) -> Any:
    return _read(
        "organism grow",
        rest,
        ("name", str, MISSING, "An organism's name."),
        ("folder", Path, MISSING, "A new folder for the checkpoint and its card."),
        ("seed", int | None, None, "Another seed, for a fresh organism of the kind."),
        ("within", float | None, None, "Minutes there are; stop early if it would take longer."),
    )


def organism_verify(rest: Sequence[str]) -> Any:
    share = ("share", float, 1.0, "Share of the examples to measure on.")
    return _read(
        "organism verify", rest, ("name", str, MISSING, "A name, or a folder one was grown into."), share, JSON
    )


def run(method: Method[..., Finding], rest: Sequence[str]) -> tuple[Any, Request]:
    """The flags of one method, and the request they make."""
    needed = {**method.subjects, **method.examples}
    saved = _saved(rest, method.name, needed)
    options = ("options", method.options, bind_options(method, saved.options), "Options of this method.")
    inputs = [_input(name, saved, required=required, example=name in method.examples)
              for name, required in needed.items()]  # fmt: skip
    form = _read(f"run {method.name}", rest, *inputs, options, *_common(saved))
    given = {name: value for name, value in pack(form.options)[0].items() if name != "is"}
    return form, _requested(saved, form, list(method.subjects), list(method.examples), given)


def audit(rest: Sequence[str]) -> tuple[Any, Request]:
    """The flags of an audit: all models and examples that any method takes."""
    subjects, examples = (
        list(dict.fromkeys(name for entry in catalogue() for name in getattr(entry, kind) if name != "subject"))
        for kind in ("subjects", "examples")
    )
    saved = _saved(rest, "audit", ["subject", *subjects, *examples])
    depth, batch_size = _chosen(saved, _from(rest))
    model = ("model", tyro.conf.Positional[str | None], saved.models.get("subject"), f"{MODEL}.")
    inputs = [_input(name, saved, required=False, example=name in examples) for name in (*subjects, *examples)]
    form = _read(
        "audit", rest, model, *inputs,
        ("depth", Depth, depth, "quick takes about a minute on two cores for a small model; the others ask more."),
        ("batch_size", int | None, batch_size, "How many examples are shown at once, by methods with this option."),
        ("fail_on", Literal["inconclusive", "concern", "fail", "never"] | None, None,
         "Exit with 1 from this verdict on; below it with 0, or with 3 if a judge that was asked gave no answer."),
        *_common(saved),
    )  # fmt: skip
    if form.model is None:
        raise BadInput("audit needs a model: glasshouse audit MODEL, for example glasshouse audit organism:hijack-logo")
    options = {"depth": form.depth} | ({} if form.batch_size is None else {"batch_size": form.batch_size})
    chosen(options)
    return form, _requested(saved, form, ["subject", *subjects], examples, options)


def _saved(rest: Sequence[str], method: str, needed: Collection[str]) -> Request:
    """What `--from` names stands where no flag says otherwise."""
    file = _from(rest)
    saved = Request.read(file) if file else Request(method, {}, {}, {}, Opening())
    if saved.method != method:
        raise BadInput(f"--from {file}: that file asks {saved.method}, the command says {method}")
    for name in {**saved.models, **saved.data}:
        if name not in needed:
            raise BadInput(f"--from {file}: {method} takes no {name!r}; it takes {', '.join(needed)}")
    return saved


def _chosen(saved: Request, file: Path | None) -> tuple[Depth, int | None]:
    """What the file says of an audit's options."""
    try:
        return chosen(saved.options)
    except BadInput as problem:
        raise BadInput(f"--from {file}: {problem}") from None


def _input(name: str, saved: Request, *, required: bool, example: bool) -> Column:
    kind = "A .jsonl, a .parquet or a folder of images; organisms bring their own" if example else MODEL
    given = {**saved.models, **saved.data}.get(name)
    return _column(name), str | None, given, f"{kind}{'' if required else ' (may be left out)'}."


def _column(parameter: str) -> str:
    return flag(parameter).replace("-", "_")


def _common(saved: Request) -> tuple[Column, ...]:
    """What every question takes."""
    return (
        ("opening", Opening, replace(saved.opening, **dict.fromkeys(TYPED, False)), "How models are opened."),
        ("limit", int | None, saved.limit, "Use only the first so many examples."),
        ("runs", Path, Path("runs"), "Where run folders are kept."),
        ("dry_run", bool, False, "Print the bound question as a file that --from takes, and stop."),
        ("from", Path | None, None,
         "Take what no flag says from a file that a dry run printed; --download and --remote-code are always typed."),
        JSON,
    )  # fmt: skip


def _requested(
    saved: Request, form: Any, subjects: Sequence[str], examples: Sequence[str], options: dict[str, Any]
) -> Request:  # fmt: skip
    for name in TYPED:
        if getattr(saved.opening, name) and not getattr(form.opening, name):
            typed = f"--{name.replace('_', '-')}"
            raise BadInput(
                f"--from {form.from_}: it asks for {typed}, which no file may give leave to; type it as well"
            )
    given = {name: getattr(form, _column(name)) for name in (*subjects, *examples)}
    models, data = ({name: str(given[name]) for name in names if given[name] is not None}
                    for names in (subjects, examples))  # fmt: skip
    return Request(saved.method, models, data, options, form.opening, form.limit)


def _from(rest: Sequence[str]) -> Path | None:
    for place, word in enumerate(rest):
        if word == "--from" and place + 1 < len(rest):
            return Path(rest[place + 1])
        if word.startswith("--from="):
            return Path(word.removeprefix("--from="))
    return None


def _read(name: str, rest: Sequence[str], *columns: Column) -> Any:
    settings = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    made: list[tuple[str, Any, Any]] = []
    for column, kind, default, help_text in columns:
        annotation = tyro.conf.Positional[kind] if default is MISSING else kind
        # A flag may be called `from`, a field may not.
        extra = tyro.conf.arg(help=help_text, name=column.replace("_", "-"))
        called = f"{column}_" if column == "from" else column
        plain = column in ("options", "opening")
        made.append(
            (
                called,
                kind if plain else Annotated[annotation, extra],
                field() if default is MISSING else field(default=default),
            )
        )
    form, said = make_dataclass("Flags", made, frozen=True), StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(form, args=list(rest), prog=f"glasshouse {name}", config=settings)
    except SystemExit as ended:
        if not ended.code:  # --help
            sys.stdout.flush()  # a reader that has left is noticed now and not when the interpreter ends
            raise
    raise BadInput(f"{_first_words(said.getvalue())}; see glasshouse {name} --help")


def _first_words(box: str) -> str:
    """What is wrong, out of what tyro draws around it: a box, or where there is no UTF-8 a title underlined; coloured
    or not."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    drawn = plain[1:] if plain[0].startswith("╭") else plain[2:]
    lines = (line.strip(" │").rstrip(".") for line in drawn)
    return " ".join(takewhile(lambda line: line.strip("─-╰╯"), lines))
