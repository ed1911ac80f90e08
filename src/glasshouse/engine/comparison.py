"""Where do two runs, or two audits, differ? Provenance, verdicts and every number of their rows, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glasshouse.engine.audit import Audit
from glasshouse.engine.runs import Run
from glasshouse.values.findings import Finding
from glasshouse.values.intervals import Interval
from glasshouse.values.rows import rows_field, units

BESIDE_THE_QUESTION = ("started", "seconds", "command", "resumed", "key")
"""Facts that differ between any two runs."""


@dataclass(frozen=True)
class Pair:
    """One question, answered twice."""

    method: str
    first: Run | None
    second: Run | None
    differences: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Two runs or two audits side by side."""

    first: Run | Audit
    second: Run | Audit
    pairs: tuple[Pair, ...]


def side_by_side(first: Run | Audit, second: Run | Audit) -> Comparison:
    """By question; of two audits, all that either answered."""
    ours, theirs = (_by_method(record) for record in (first, second))
    pairs = [
        Pair(name, ours.get(name), theirs.get(name),
             compare(ours[name], theirs[name]) if name in ours and name in theirs else ())
        for name in dict.fromkeys([*ours, *theirs])
    ]  # fmt: skip
    return Comparison(first, second, tuple(pairs))


def compare(first: Run, second: Run) -> list[dict[str, Any]]:
    """Every fact and every number that differs, with both values."""
    differences: list[dict[str, Any]] = []
    for name, (a, b) in _paired(_flat(first.facts), _flat(second.facts)).items():
        if not _same(a, b) and name.split(".")[0] not in BESIDE_THE_QUESTION:
            differences.append({"what": name, "first": a, "second": b})
    if type(first.finding) is type(second.finding):
        ours, theirs = (_by_unit(record.finding) for record in (first, second))
        for unit, (row, other) in _paired(ours, theirs).items():
            differences += [
                {"what": f"{unit}: {column}", "first": a, "second": b}
                for column, (a, b) in _paired(row or {}, other or {}).items()
                if not _same(a, b)
            ]
    return differences


def _by_unit(finding: Finding) -> dict[str, Mapping[str, Any]]:
    """Cells of each unit under the name of their unit: its keys, or its first cell where no keys are declared."""
    field = rows_field(type(finding))
    keys = len(field.keys) if field else 1
    named: dict[str, Mapping[str, Any]] = {}
    arranged = type(finding).rows is not Finding.rows  # by the class itself, which leaves no interval whole
    for number, row in enumerate(finding.rows() if arranged else units(finding)):
        name = ", ".join(str(cell) for cell in list(row.values())[:keys]) or str(number)
        named[name if name not in named else f"{name} ({number})"] = row
    return named


def _by_method(record: Run | Audit) -> dict[str, Run]:
    return dict(record.runs) if isinstance(record, Audit) else {str(record.facts["method"]["name"]): record}


def _flat(tree: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {place: tree}
    return {
        name: leaf
        for key, item in tree.items()
        for name, leaf in _flat(item, f"{place}.{key}" if place else str(key)).items()
    }


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Interval) and isinstance(b, Interval):
        return repr(a) == repr(b)  # NaN equals NaN here
    return a == b or (a != a and b != b)


def _paired(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])}
