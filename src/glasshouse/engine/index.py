"""What lies in a folder of runs? One line each, newest first, read without loading a tensor.

The folder of a screen also has a line for every model that was refused or met an internal error.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glasshouse.data.strangers import read_object
from glasshouse.engine.audit import Audit
from glasshouse.engine.runs import Run
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import counted

FILES = {"run": "run.json", "audit": "audit.json"}
"""The file that each kind of folder is read by."""
SCREEN = "screen.parquet"
"""The table of a screen, in the folder that holds its audits."""
RUNS_COME_FROM = "glasshouse run and glasshouse audit write runs"
NAME = re.compile(r"[a-z0-9_-]+")
"""What a method may be called; a name from disk may be a stranger's."""


@dataclass(frozen=True)
class Entry:
    """One run or audit."""

    folder: Path | None
    """None for a model of a screen that could not be audited."""
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
    if folder.is_file():
        raise BadInput(f"{folder}: a file; name the folder of a run or an audit, for example {folder.parent}")
    if not kind_of(folder) and folder.is_dir():
        inside = sum(1 for each in folder.iterdir() if kind_of(each))
        fix = f"it holds {counted(inside, 'run or audit', 'runs and audits')}: name one" if inside else RUNS_COME_FROM
        raise BadInput(f"{folder}: neither a run nor an audit; {fix}")
    return Audit.read(folder) if kind_of(folder) == "audit" else Run.read(folder)


def entries(root: Path) -> tuple[list[Entry], list[Path]]:
    """All that can be read, newest first; and those that cannot."""
    if root.is_file():
        raise BadInput(f"{root}: a file; name a folder that holds runs")
    readable: list[Entry] = []
    broken: list[Path] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        kind = kind_of(folder)
        if not kind:
            continue
        try:
            readable.append(_entry(folder, kind, read_object(folder / FILES[kind])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            broken.append(folder)
    if (root / SCREEN).is_file():
        try:
            readable += _not_audited(root / SCREEN)
        except (OSError, ValueError, KeyError):
            broken.append(root / SCREEN)
    if not readable and not broken:
        raise BadInput(f"{root}: holds no runs; {RUNS_COME_FROM}")
    return sorted(readable, key=lambda entry: entry.started, reverse=True), broken


def _entry(folder: Path, kind: str, facts: dict[str, Any]) -> Entry:
    name = str(facts["method"]["name"] if kind == "run" else facts["depth"])
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a method")
    first = next(iter(facts["inputs"].values()), {"label": ""})
    words = (first["label"], facts["verdict"], facts["headline"], facts["started"])
    title = name if kind == "run" else f"{name} audit"
    return Entry(folder, kind, title, *map(str, words), page=(folder / "report.html").is_file())


def _not_audited(table: Path) -> list[Entry]:
    """The models of a screen's table that have no folder."""
    from pyarrow import parquet

    columns = ["line", "model", "verdict", "headline", "folder"]
    rows = [row for row in parquet.read_table(table, columns=columns).to_pylist() if not row["folder"]]
    return [
        Entry(None, "audit", f"line {row['line']}", *(str(row[name]) for name in columns[1:4]), started="", page=False)
        for row in rows
    ]
