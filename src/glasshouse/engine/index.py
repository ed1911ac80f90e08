"""What lies in a folder of runs? One line each, read off without loading a tensor; and what two of them have in common.

entries("runs")                        the newest first
side_by_side(one, other)               two runs, or two audits method by method
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glasshouse.engine.audit import Audit
from glasshouse.engine.runs import Run, compare
from glasshouse.values.errors import BadInput

FILES = {"run": "run.json", "audit": "audit.json"}
"""What each kind of folder has, and is read by."""


@dataclass(frozen=True)
class Entry:
    """One run or audit."""

    folder: Path
    kind: str
    name: str
    """The method's; of an audit its depth."""
    subject: str
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
    """All that can be read, the newest first; and those that cannot."""
    found: list[Entry] = []
    broken: list[Path] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        kind = kind_of(folder)
        if not kind:
            continue
        try:
            found.append(_entry(folder, kind, json.loads((folder / FILES[kind]).read_text("utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            broken.append(folder)
    if not found and not broken:
        raise BadInput(f"{root}: holds no runs; they are made by glasshouse run and glasshouse audit")
    return sorted(found, key=lambda one: one.started, reverse=True), broken


def _entry(folder: Path, kind: str, facts: dict[str, Any]) -> Entry:
    name = facts["method"]["name"] if kind == "run" else f"{facts['depth']} audit"
    said = (name, facts["subjects"]["subject"]["name"], facts["verdict"], facts["headline"], facts["started"])
    return Entry(folder, kind, *map(str, said), page=(folder / "report.html").is_file())


@dataclass(frozen=True)
class Pair:
    """One question, answered twice."""

    method: str
    first: Run | None
    second: Run | None
    differences: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Beside:
    """Two answers side by side."""

    first: Run | Audit
    second: Run | Audit
    pairs: tuple[Pair, ...]


def side_by_side(first: Run | Audit, second: Run | Audit) -> Beside:
    """By question; of two audits, all that either answered."""
    ones, others = (_by_method(one) for one in (first, second))
    pairs = [
        Pair(name, ones.get(name), others.get(name),
             compare(ones[name], others[name]) if name in ones and name in others else ())
        for name in dict.fromkeys([*ones, *others])
    ]  # fmt: skip
    return Beside(first, second, tuple(pairs))


def _by_method(made: Run | Audit) -> dict[str, Run]:
    return dict(made.runs) if isinstance(made, Audit) else {str(made.facts["method"]["name"]): made}
