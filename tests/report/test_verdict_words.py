"""One word for one verdict on every surface: terminal, pages, notebook, JSON, JUnit, SARIF, model card, list."""

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from glasshouse.audit_commands import ORDER, _as_json
from glasshouse.engine.audit import Audit
from glasshouse.engine.comparison import Comparison, Pair
from glasshouse.engine.index import Entry
from glasshouse.report.console import InertConsole
from glasshouse.report.exchange import junit, model_card, sarif
from glasshouse.report.glossary import VERDICTS
from glasshouse.report.html import audit_page, comparison_page, fragment, index_page, page
from glasshouse.report.live import LineView
from glasshouse.report.terminal import STATUS, STYLES, show_audit, show_finding, show_pairs
from glasshouse.screen_commands import STATUSES, WORST
from glasshouse.values.findings import Verdict
from sample_findings import audit_with

BADGE = re.compile(r'<span class="verdict[^"]*">([^<]*)</span>')


def printed(show: Callable[..., None], *what: Any) -> str:
    screen = InertConsole(file=StringIO(), width=80)
    show(screen, *what)
    return screen.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue] - the StringIO above


def whole(audit: Any) -> Audit:
    """The same as it is on disk."""
    runs = {name: SimpleNamespace(finding=run.finding, facts=run.facts) for name, run in audit.runs.items()}
    return Audit(Path("audit"), audit.facts, audit.sections, runs)  # pyright: ignore[reportArgumentType]


def surfaces(audit: Any) -> dict[str, list[str]]:
    """By surface, the words that stand where a check's verdict stands; the check is `witness`."""
    run = audit.runs["witness"]
    finding = run.finding
    same = Comparison(audit, audit, (Pair("witness", run, run, ()), Pair("other", run, None, ())))
    entry = Entry(None, "run", "witness", "model", str(finding.verdict), finding.headline, "2026", page=False)
    cases = ElementTree.fromstring(junit(audit))
    told = [(child.get("message") or child.text or "") for child in cases[0]]
    (log,) = json.loads(sarif(audit))["runs"]
    alerts = [alert["message"]["text"].partition(":")[0] for alert in log["results"]]
    alerts += [alert["properties"]["verdict"] for alert in log["results"]]
    row = next(line for line in printed(show_audit, audit).splitlines() if line.startswith("witness"))
    (section,) = _as_json(whole(audit))["sections"]
    live = printed(lambda screen: LineView(screen, {}).ended(audit.sections[0], finding))
    # The pages also explain all verdicts: what counts is a badge.
    return {
        "terminal: a finding": [printed(show_finding, finding).split()[0].lower()],
        "terminal: an audit": [row.split()[1]],
        "terminal: progress": [live.split()[1]],
        "terminal: compare": re.findall(r"(?:first|second): +(\w+):", printed(show_pairs, same.pairs)),
        "page of a run": BADGE.findall(page(SimpleNamespace(finding=finding, facts=named(run.facts)))),
        "page of an audit": BADGE.findall(audit_page(audit).partition('id="examined"')[2]),
        "page of a comparison": BADGE.findall(comparison_page(same).partition("</header>")[2]),
        "index": BADGE.findall(index_page([entry], [])),
        "notebook": re.findall(r"<strong>(\w+)</strong>", fragment(finding))[:1],
        "JSON": [section["verdict"]],
        "JUnit": [text.partition(":")[0] for text in told],
        "SARIF": alerts or [other["answer"] for other in log["properties"]["otherSections"]],
        "model card": [line.split(" | ")[1] for line in model_card(audit).splitlines() if line.startswith("| What")],
    }


def named(facts: dict[str, Any]) -> dict[str, Any]:
    """Of a method that is installed, because its page is shown too."""
    return {**facts, "method": {**facts["method"], "name": "lens"}}


@pytest.mark.parametrize("verdict", Verdict)
def test_one_word_for_one_verdict_everywhere(verdict: Verdict):
    found = surfaces(audit_with("half", witness=str(verdict)))
    assert {surface: set(words) for surface, words in found.items()} == {surface: {str(verdict)} for surface in found}


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.CONCERN, Verdict.FAIL])
def test_one_word_for_an_audits_verdict_everywhere(verdict: Verdict):
    audit = audit_with("half", judge=str(verdict))
    assert audit.judgement.verdict == verdict
    (log,) = json.loads(sarif(audit))["runs"]
    assert printed(show_audit, audit).split()[0] == verdict.upper()
    assert BADGE.findall(audit_page(audit))[0] == verdict
    assert log["properties"]["verdict"] == verdict
    assert re.findall(r"^\*\*(\w+)\*\*:", model_card(audit), re.M) == [verdict]


def test_no_table_of_verdicts_has_another_word():
    words = {str(verdict) for verdict in Verdict}
    states = {"not run", "refused", "internal error"}
    assert set(STATUS) == set(STYLES) == words
    assert set(VERDICTS) == words | states
    assert set(WORST) == set(STATUSES) == words | (states - {"not run"})
    assert set(ORDER) == {*words, "never"}
