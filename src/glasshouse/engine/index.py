"""What lies in a folder of runs? One line each, newest first, read without loading a tensor."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glasshouse.engine.audit import Audit
from glasshouse.engine.runs import Run
from glasshouse.values.errors import BadInput

FILES = {"run": "run.json", "audit": "audit.json"}
"""The file that each kind of folder is read by."""
NAME = re.compile(r"[a-z0-9_-]+")
"""What a method may be called; a name from disk may be a stranger's."""


@dataclass(frozen=True)
class Entry:
    """One run or audit."""

    folder: Path
    kind: str
    name: str
    """The method's; of an audit its depth."""
    examined: str
    """The label of its first input."""
    verdict: str
    headline: str
    started: str
    page: bool


def kind_of(folder: Path) -> str:
    """`run`, `audit`, or nothing."""
    return next((kind for kind, file in FILES.items() if (folder / file).is_file()), "")


def read(folder: Path) -> Run | Audit:
    """Whichever it is."""
    return Audit.read(folder) if kind_of(folder) == "audit" else Run.read(folder)


def entries(root: Path) -> tuple[list[Entry], list[Path]]:
    """All that can be read, newest first; and those that cannot."""
    readable: list[Entry] = []
    broken: list[Path] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        kind = kind_of(folder)
        if not kind:
            continue
        try:
            readable.append(_entry(folder, kind, json.loads((folder / FILES[kind]).read_text("utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            broken.append(folder)
    if not readable and not broken:
        raise BadInput(f"{root}: holds no runs; they are made by glasshouse run and glasshouse audit")
    return sorted(readable, key=lambda entry: entry.started, reverse=True), broken


def _entry(folder: Path, kind: str, facts: dict[str, Any]) -> Entry:
    name = str(facts["method"]["name"] if kind == "run" else facts["depth"])
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a method")
    first = next(iter(facts["inputs"].values()), {"label": ""})
    words = (first["label"], facts["verdict"], facts["headline"], facts["started"])
    shown = name if kind == "run" else f"{name} audit"
    return Entry(folder, kind, shown, *map(str, words), page=(folder / "report.html").is_file())
