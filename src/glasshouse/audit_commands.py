"""What can be typed about trust, and about what was answered before: audit · report · compare.

An audit's exit status is its verdict's (0 pass, 1 concern or fail, 3 inconclusive), unless `--fail-on` says from where
on it is 1; below that it is 0, or 3 where a judge that was asked did not answer or a witness broke down, so that nobody
gets past by breaking them.
"""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glasshouse import flags
from glasshouse.report.inert import inert
from glasshouse.report.terminal import STATUS, console, show_audit, show_finding, show_rows, show_verdict
from glasshouse.values.codec import pack
from glasshouse.values.errors import Unwritable
from glasshouse.values.findings import Verdict

if TYPE_CHECKING:
    from glasshouse.engine.audit import Audit
    from glasshouse.engine.runs import Run

ORDER = (*map(str, Verdict), "never")
"""What `--fail-on` may say, from harmless to bad."""


def audit(rest: Sequence[str]) -> int:
    """Ask every question that can be asked of a model, and bind the answers into one verdict."""
    from glasshouse.engine.audit import examine
    from glasshouse.engine.binding import as_tree
    from glasshouse.engine.catalogue import catalogue
    from glasshouse.report.live import plan

    form, request = flags.audit(rest)
    if form.dry_run:
        print(json.dumps(as_tree(request), indent=1))
        return 0
    needs = {entry.name: entry.needs for entry in catalogue()}
    with plan(needs, quiet=form.json) as watch:
        made = examine(request, root=form.runs, command=shlex.join(["glasshouse", "audit", *rest]), watch=watch)
    status = tell(made, as_json=form.json)
    if form.fail_on is None:
        return status
    if ORDER.index(str(made.judgement.verdict)) >= ORDER.index(form.fail_on):
        return 1
    asked = [one for one in made.sections if one.role == "judge" and one.state != "not asked"]
    broken = any(one.role == "witness" and one.state == "broke down" for one in made.sections)
    judged = bool(asked) and all(one.state == "answered" for one in asked) and not broken
    return 0 if judged or form.fail_on == "never" else STATUS["inconclusive"]


def report(rest: Sequence[str]) -> int:
    """Show a run or an audit again, or list a folder of them: glasshouse report FOLDER."""
    from glasshouse.engine.index import kind_of, read

    form = flags.report(rest)
    if form.run.is_dir() and not kind_of(form.run):
        return _index(form.run, as_json=form.json)
    return tell(read(form.run), as_json=form.json, again=True)


def _index(root: Path, *, as_json: bool) -> int:
    from glasshouse.engine.files import write_whole
    from glasshouse.engine.index import entries
    from glasshouse.report.html import index_page

    found, broken = entries(root)
    if as_json:
        print(json.dumps([{**asdict(one), "folder": str(one.folder)} for one in found]))
        return 0
    screen = console()
    rows = [(one.folder.name, one.subject, one.verdict) for one in found]
    show_rows(screen, "", ("run", "model", "verdict"), rows)
    for folder in broken:
        screen.print(f"! {inert(folder)} cannot be read", soft_wrap=True)
    page = root / "index.html"
    shown = f"Page: {page}"
    try:
        write_whole(page, index_page(found, [folder.name for folder in broken]).encode())
    except Unwritable as problem:  # what others share with us may be read and not written
        shown = f"! no page: {problem}"
    following = f"\nNext: glasshouse report {inert(shlex.quote(str(root / rows[0][0])))}" if rows else ""
    screen.print(f"\n{inert(shown)}{following}", soft_wrap=True)
    return 0


def compare(rest: Sequence[str]) -> int:
    """What differs between two runs or two audits: glasshouse compare FIRST SECOND [--page FILE]."""
    from glasshouse.engine.files import write_whole
    from glasshouse.engine.index import kind_of, read, side_by_side
    from glasshouse.report.html import comparison_page
    from glasshouse.report.terminal import show_pairs

    form = flags.compare(rest)
    found = side_by_side(read(form.first), read(form.second))
    if form.page:
        write_whole(form.page, comparison_page(found).encode())
    if form.json:
        by_method: dict[str, Any] = {pair.method: list(pair.differences) for pair in found.pairs}
        several = "audit" in (kind_of(form.first), kind_of(form.second)) or len(by_method) > 1
        print(json.dumps(pack(by_method if several else found.pairs[0].differences)[0], allow_nan=False))
        return 0
    screen = console()
    for made in (found.first, found.second) if kind_of(form.first) == kind_of(form.second) == "audit" else ():
        show_verdict(screen, made.facts["verdict"], made.facts["headline"])
    show_pairs(screen, found.pairs)
    if form.page:
        screen.print(f"Page: {inert(form.page)}", soft_wrap=True)
    return 0


def tell(made: "Run | Audit", *, as_json: bool, again: bool = False) -> int:
    """What was answered, where it is, and what to type next; `again` if just that was typed."""
    from glasshouse.engine.audit import Audit

    verdict = str(made.judgement.verdict if isinstance(made, Audit) else made.finding.verdict)
    if as_json:
        print(json.dumps(_as_json(made)))
        return STATUS[verdict]
    screen, folder = console(), inert(shlex.quote(str(made.folder)))
    following = f"compare {folder} ANOTHER" if again else f"report {folder}"
    if isinstance(made, Audit):
        show_audit(screen, made)
        following = f"report {folder}/{next(iter(made.runs))}" if made.runs else following
    else:
        show_finding(screen, made.finding)
    page = _page(made.folder)
    shown = f"Page: {inert(page)}\n" if page else ""
    screen.print(f"\nRun:  {inert(made.folder)}\n{shown}Next: glasshouse {following}", soft_wrap=True)
    return STATUS[verdict]


def _page(folder: Path) -> Path | None:
    """Its own, or that of the audit it is part of."""
    from glasshouse.engine.index import kind_of

    above = Path(os.path.normpath(folder / ".."))  # of "." too
    own, whole = (one / "report.html" for one in (folder, above))
    if own.is_file():
        return own
    return whole if kind_of(above) == "audit" and whole.is_file() else None


def _as_json(made: "Run | Audit") -> dict[str, Any]:
    from glasshouse.engine.audit import Audit

    if not isinstance(made, Audit):
        return {"run": str(made.folder), **made.facts, "finding": pack(made.finding)[0]}
    judged = made.judgement
    sections: list[dict[str, Any]] = []
    for one in made.sections:
        told: dict[str, Any] = pack(one)[0]
        if one.method in made.runs:
            finding = made.runs[one.method].finding
            told |= {"verdict": str(finding.verdict), "headline": finding.headline, "finding": pack(finding)[0]}
        sections.append(told)
    words = {"advice": judged.advice(), "found": judged.found(), "sure": judged.sure(), "left_out": judged.left_out()}
    return {"audit": str(made.folder), **made.facts, **words, "sections": sections}
