"""How do typed words become a form? Its columns say which flags there are, tyro parses the words, and what tyro refuses
becomes one line with its cure."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, field, is_dataclass, make_dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

import tyro

from glasshouse.mistakes import explained, refuse_repeated
from glasshouse.model.batching import Auto
from glasshouse.values.declared import declared
from glasshouse.values.errors import BadInput

Column = tuple[str, Any, Any, str, str | None]
"""Name, type, default, help and metavar of one flag; a default of MISSING makes it positional."""
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
GROWS, BATCH = "auto: as many as memory was measured to hold.", "N|auto"


def parsed(name: str, rest: Sequence[str], *columns: Column) -> Any:
    """The words as a form with one attribute per column. Columns that are dataclasses become flags of their own under a
    heading."""
    refuse_repeated(rest)
    nested = {column: (type(default), default) for column, _, default, _, _ in columns if is_dataclass(default)}
    specified: list[tuple[str, Any, Any]] = []
    for column in columns:
        if column[0] in nested:
            kind, default = nested[column[0]]
            specified.append((column[0], *_section(kind, default, column[3])))
        else:
            specified.append(_specified(column))
    form, output = make_dataclass("Flags", specified, frozen=True), StringIO()
    settings = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        with redirect_stderr(output):
            flags = tyro.cli(form, args=list(rest), prog=f"glasshouse {name}", config=settings)
    except SystemExit as ended:
        if not ended.code:  # --help
            sys.stdout.flush()  # a reader that has left is noticed now and not when the interpreter ends
            raise
        flags = _flags(columns)
        raise BadInput(f"{explained(output.getvalue(), name, flags)}; see glasshouse {name} --help") from None
    whole = {column: kind(**vars(getattr(flags, column))) for column, (kind, _) in nested.items()}
    return replace(cast(Any, flags), **whole)


def _flags(columns: Iterable[Column]) -> list[str]:
    """What can be typed with two dashes."""
    sections = [
        [each.name for each in declared(type(default))] for _, _, default, *_ in columns if is_dataclass(default)
    ]
    plain = [name for name, kind, default, *_ in columns if default is not MISSING and "Positional" not in str(kind)]
    return [f"--{name.replace('_', '-')}" for names in (plain, *sections) for name in names]


def _section(kind: type[Any], default: Any, help_text: str) -> tuple[Any, Any]:
    """Type and default of a dataclass whose fields become flags; their docstrings become the help."""
    hints = get_type_hints(kind)
    columns = [
        _specified(
            (each.name, int | Auto, getattr(default, each.name), f"{each.explanation} {GROWS}", BATCH)
            if each.name == "batch_size"
            else (each.name, hints[each.name], getattr(default, each.name), each.explanation, None)
        )
        for each in declared(kind)
    ]
    section = make_dataclass(kind.__name__, columns, frozen=True)
    section.__doc__ = help_text
    return section, field(default=section())


def _specified(column: Column) -> tuple[str, Any, Any]:
    """A column as the field of a form."""
    name, kind, default, help_text, metavar = column
    positional = default is MISSING
    extra = tyro.conf.arg(
        help=help_text, name=name.replace("_", "-"), metavar=metavar or _metavar(kind),
        help_behavior_hint="" if any(default is each for each in (None, False, ())) else None,
    )  # fmt: skip
    attribute = f"{name}_" if name == "from" else name  # a flag may be called `from`, a field may not
    annotation = Annotated[tyro.conf.Positional[kind] if positional else kind, extra]
    return attribute, annotation, field() if positional else field(default=default)


def _metavar(kind: Any) -> str | None:
    """What stands behind a flag of this type; None where tyro lists the choices."""
    plain = [part for part in get_args(kind) or (kind,) if part is not type(None)]
    return METAVARS.get(plain[0]) if len(plain) == 1 else None
