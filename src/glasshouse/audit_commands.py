"""What can be typed about trust, and about finished runs and audits: audit · report · compare.

An audit's exit status is its verdict's (0 pass, 1 concern or fail, 3 inconclusive). `--fail-on` sets the verdict from
which it is 1; below that it is 0, or 3 where a judge that ran gave no answer or a witness ended with an internal error,
so that breaking a method does not pass the gate.
"""

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glasshouse import flags
from glasshouse.report.console import console
from glasshouse.report.facts import failed, ran
from glasshouse.report.inert import suggested
from glasshouse.report.terminal import STATUS, show_audit, show_estimate, show_finding, show_rows, show_verdict
from glasshouse.values.codec import pack
from glasshouse.values.errors import BadInput, Unwritable
from glasshouse.values.findings import Verdict

if TYPE_CHECKING:
    from glasshouse.engine.audit import Audit
    from glasshouse.engine.index import Entry
    from glasshouse.engine.preflight import Estimate
    from glasshouse.engine.runs import Run

ORDER = (*map(str, Verdict), "never")
"""Values of `--fail-on`, from harmless to bad."""


def audit(rest: Sequence[str]) -> int:
    """Run every method whose inputs are there, and combine the findings into one verdict."""
    from glasshouse.engine.audit import estimated_audit, examine
    from glasshouse.engine.audit_plan import Methods
    from glasshouse.engine.binding import as_tree
    from glasshouse.engine.catalogue import catalogue
    from glasshouse.report.live import plan

    form, request = flags.audit(rest)
    if form.dry_run:
        show_dry_run(lambda: estimated_audit(request, Methods.load()), quiet=form.json)
        print(json.dumps(as_tree(request), indent=1))
        return 0
    needs = {entry.name: entry.needs for entry in catalogue()}
    with plan(needs, quiet=form.json) as watch:
        result = examine(
            request, root=form.runs, command=shlex.join(["glasshouse", "audit", *rest]), watch=watch, on=form.on
        )
    status = tell(result, as_json=form.json)
    return status if form.fail_on is None else _gate(result, form.fail_on)


def show_dry_run(estimated: "Callable[[], Estimate | None]", *, quiet: bool) -> None:
    """Show on standard error the estimate for a dry run, or why there is none."""
    screen = console(stderr=True)
    try:
        estimate = None if quiet else estimated()
    except BadInput as problem:  # the question is bound all the same: its files may lie on another machine
        screen.unbroken(f"! {problem}")
        return
    if estimate is not None:
        show_estimate(screen, estimate)


def _gate(result: "Audit", bar: str) -> int:
    """The exit status where `--fail-on` sets it."""
    if ORDER.index(str(result.judgement.verdict)) >= ORDER.index(bar):
        return 1
    judges = [section for section in result.sections if section.role == "judge" and ran(section)]
    broken = any(section.role == "witness" and failed(section) for section in result.sections)
    judged = bool(judges) and all(section.method in result.runs for section in judges) and not broken
    return 0 if judged or bar == "never" else STATUS["inconclusive"]


def report(rest: Sequence[str]) -> int:
    """Show a run or an audit again, or list a folder of them: glasshouse report FOLDER."""
    from glasshouse.engine.index import kind_of, read

    form = flags.read("report", rest)
    if form.run.is_dir() and not kind_of(form.run):
        return _index(form.run, as_json=form.json)
    return tell(read(form.run), as_json=form.json, again=True)


def _index(root: Path, *, as_json: bool) -> int:
    from glasshouse.engine.files import write_whole
    from glasshouse.engine.index import entries
    from glasshouse.report.html import index_page

    listed, broken = entries(root)
    if as_json:
        print(json.dumps([{**asdict(entry), "folder": entry.folder and str(entry.folder)} for entry in listed]))
        return 0
    screen = console()
    show_rows(screen, "", ("run", "examined", "verdict"), [_row(entry) for entry in listed])
    for folder in broken:
        screen.unbroken(f"! {folder} cannot be read")
    page = root / "index.html"
    screen.line()
    try:
        write_whole(page, index_page(listed, [folder.name for folder in broken]).encode())
        screen.unbroken(f"Page: {page}")
    except Unwritable as problem:  # a folder that others share may be readable only
        screen.unbroken(f"! no page: {problem}")
    newest = next((entry.folder for entry in listed if entry.folder), None)
    if newest:
        screen.unbroken(suggested("report", newest))
    return 0


def _row(entry: "Entry") -> tuple[str, str, str]:
    return entry.folder.name if entry.folder else entry.name, entry.examined, entry.verdict


def compare(rest: Sequence[str]) -> int:
    """What differs between two runs or two audits: glasshouse compare FIRST SECOND [--page FILE]."""
    from glasshouse.engine.audit import Audit
    from glasshouse.engine.comparison import side_by_side
    from glasshouse.engine.files import write_whole
    from glasshouse.engine.index import read
    from glasshouse.report.html import comparison_page
    from glasshouse.report.terminal import show_pairs

    form = flags.read("compare", rest)
    comparison = side_by_side(read(form.first), read(form.second))
    if form.page:
        write_whole(form.page, comparison_page(comparison).encode())
    if form.json:
        by_method: dict[str, Any] = {pair.method: list(pair.differences) for pair in comparison.pairs}
        several = any(isinstance(each, Audit) for each in (comparison.first, comparison.second)) or len(by_method) > 1
        print(json.dumps(pack(by_method if several else comparison.pairs[0].differences)[0], allow_nan=False))
        return 0
    screen = console()
    if isinstance(comparison.first, Audit) and isinstance(comparison.second, Audit):
        for judgement in (comparison.first.judgement, comparison.second.judgement):
            show_verdict(screen, judgement.verdict, judgement.headline)
    show_pairs(screen, comparison.pairs)
    if form.page:
        screen.unbroken(f"Page: {form.page}")
    return 0


def tell(result: "Run | Audit", *, as_json: bool, again: bool = False) -> int:
    """Print what was found, where it is, and the next command; `again` if `report` was just typed."""
    from glasshouse.engine.audit import Audit

    verdict = str(result.judgement.verdict if isinstance(result, Audit) else result.finding.verdict)
    if as_json:
        print(json.dumps(_as_json(result)))
        return STATUS[verdict]
    screen, folder = console(), result.folder
    following = suggested("compare", folder, "ANOTHER") if again else suggested("report", folder)
    if isinstance(result, Audit):
        show_audit(screen, result)
        following = suggested("report", folder / next(iter(result.runs))) if result.runs else following
    else:
        show_finding(screen, result.finding)
    page = _page(folder)
    screen.line()
    for line in (f"Run:  {folder}", *([f"Page: {page}"] if page else []), following):
        screen.unbroken(line)
    return STATUS[verdict]


def _page(folder: Path) -> Path | None:
    """The page of a run or audit, or of the audit that a run is part of."""
    from glasshouse.engine.index import kind_of

    above = Path(os.path.normpath(folder / ".."))  # of "." too
    own, whole = folder / "report.html", above / "report.html"
    if own.is_file():
        return own
    return whole if kind_of(above) == "audit" and whole.is_file() else None


def _as_json(result: "Run | Audit") -> dict[str, Any]:
    from glasshouse.engine.audit import Audit

    if not isinstance(result, Audit):
        return {"run": str(result.folder), **result.facts, "finding": pack(result.finding)[0]}
    judgement = result.judgement
    sections: list[dict[str, Any]] = []
    for section in result.sections:
        tree: dict[str, Any] = pack(section)[0]
        if section.method in result.runs:
            finding = result.runs[section.method].finding
            tree |= {"verdict": str(finding.verdict), "headline": finding.headline, "finding": pack(finding)[0]}
        sections.append(tree)
    summary = {
        "advice": judgement.advice(),
        "headlines": judgement.headlines(),
        "evidence": judgement.evidence(),
        "not_examined": judgement.not_examined(),
        "power": judgement.power(),
    }
    return {"audit": str(result.folder), **result.facts, **summary, "sections": sections}
