"""What can be typed about many models: screen.

A list holds on each line what one would type after `glasshouse audit`; what is typed after the list goes for every line
that does not say otherwise. The exit status is that of the worst verdict.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glasshouse import flags
from glasshouse.engine.audit_plan import EXAMINED
from glasshouse.report.console import console
from glasshouse.report.inert import suggested
from glasshouse.report.terminal import STATUS, show_preflight, show_rows
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import counted, duration, listed

if TYPE_CHECKING:
    from glasshouse.engine.screening import Candidate

ITS_OWN = ("--runs", "--on", "--json", "--dry-run", "--from", "--fail-on", "--help", "-h")
"""Flags that belong to the screen as a whole."""
COLUMNS = ("model", "verdict", "headline")
WORST = ("fail", "concern", "refused", "internal error", "inconclusive", "described", "pass")
STATUSES = {**STATUS, "refused": 2, "internal error": 3}


def screen(rest: Sequence[str]) -> int:
    """Audit a list of models: glasshouse screen FILE [OPTIONS OF AUDIT FOR EVERY LINE]."""
    from glasshouse.engine.files import write_whole
    from glasshouse.engine.index import SCREEN, entries
    from glasshouse.engine.screening import screen as audit_all
    from glasshouse.report.html import index_page
    from glasshouse.report.live import bars

    own, shared = _split(rest)
    form = flags.screen(own)
    candidates = read(form.file, shared)
    if not form.json:
        show_estimates(candidates)
    with bars(quiet=form.json) as progress:
        result = audit_all(candidates, root=form.runs, on=form.on, progress=progress)
    status = STATUSES[min((model.verdict for model in result.results), key=WORST.index)]
    models, broken = entries(result.folder)
    page = result.folder / "index.html"
    write_whole(page, index_page(models, [folder.name for folder in broken]).encode())
    if form.json:
        rows = [{name: getattr(model, name) for name in (*COLUMNS, "folder")} for model in result.results]
        print(json.dumps({"screen": str(result.folder), "models": rows}))
        return status
    target = console()
    show_rows(target, "", COLUMNS, [tuple(getattr(model, name) for name in COLUMNS) for model in result.results])
    target.line()
    target.unbroken(f"Table: {result.folder / SCREEN}")
    target.unbroken(f"Page:  {page}")
    target.unbroken(suggested("report", result.folder))
    return status


def show_estimates(candidates: "Sequence[Candidate]") -> None:
    """One line per audit with its estimate, then the time of all audits together. An audit whose estimate fails is
    refused later, when its turn comes."""
    from glasshouse.engine.audit import estimated_audit
    from glasshouse.engine.audit_plan import Methods

    methods, rows, seconds = Methods.load(), list[tuple[str, str, str, str]](), 0.0
    for candidate in candidates:
        name = next(iter(candidate.request.inputs.get(EXAMINED, ())), candidate.text)
        try:
            estimate = estimated_audit(candidate.request, methods)
        except BadInput as problem:
            rows.append((name, "", "", f"! {problem}"))
            continue
        if estimate is not None:
            seconds += estimate.seconds
            rows.append((name, *estimate.total(), duration(estimate.seconds)))
    target = console(stderr=True)
    show_preflight(target, ("model", "parameters", "memory", "time"), rows)
    target.unbroken(f"Time: about {duration(seconds)} for {counted(len(candidates), 'model')}, one after the other.")


def read(file: Path, shared: Sequence[str] = ()) -> "list[Candidate]":
    """The candidates of a list. Any broken line stops it before work begins; the first is explained, all are named."""
    from glasshouse.data.strangers import read_bounded
    from glasshouse.engine.screening import Candidate

    try:
        lines = read_bounded(file).splitlines()
    except (OSError, ValueError) as problem:
        raise BadInput(f"{file}: not a readable list ({problem}); write one model on each line") from None
    candidates: list[Candidate] = []
    problems: list[tuple[int, Exception]] = []
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
            if words:
                candidates.append(Candidate(number, shlex.join(words), flags.audit(_completed(words, shared))[1]))
        except (BadInput, ValueError) as problem:
            problems.append((number, problem))
    if problems:
        (first, problem), *others = problems
        more = f"; also broken: {listed([f'line {number}' for number, _ in others])}" if others else ""
        raise BadInput(f"{file}:{first}: {problem}{more}")
    if not candidates:
        raise BadInput(f"{file}: holds no model; write one on each line, as after glasshouse audit")
    return candidates


def _completed(words: Sequence[str], shared: Sequence[str]) -> list[str]:
    """A line with the shared options that it does not set itself."""
    typed = {word.partition("=")[0] for word in words}
    for flag in sorted(typed & set(ITS_OWN)):
        raise BadInput(f"{flag} belongs to the whole screen; type it after glasshouse screen FILE")
    return [*words, *(word for group in _groups(shared) if group[0].partition("=")[0] not in typed for word in group)]


def _split(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """The screen's own words, and the options for every line."""
    own: list[str] = []
    shared: list[str] = []
    for group in _groups(rest):
        mine = not group[0].startswith("-") or group[0].partition("=")[0] in ITS_OWN
        (own if mine else shared).extend(group)
    return own, shared


def _groups(words: Sequence[str]) -> list[list[str]]:
    """Each flag with its values; words before the first flag stand alone."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not groups or not groups[-1][0].startswith("-"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups
