"""What do a pipeline, a hub and a model's readme want of an audit? SARIF, JUnit's XML, and a few lines of Markdown.

Each format has one place through which all text passes: it makes the text inert and escapes it as the format needs.
"""

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from glasshouse.report.facts import examined, failed, inputs_of, ran
from glasshouse.report.html import AuditLike
from glasshouse.report.inert import inert

LEVELS = {"concern": "warning", "fail": "error"}
"""SARIF levels of the verdicts that speak against a model."""


def sarif(audit: AuditLike) -> str:
    """SARIF 2.1.0: one rule for each method, one result for each finding that counts and speaks against the model, and
    a note for a judge without an answer. Code scanning makes an alert of every result, of whatever kind, so all else
    stands among the run's properties."""
    rules = [
        {"id": section.method, "shortDescription": _message(section.question), "properties": {"role": section.role}}
        for section in audit.sections
    ]
    levels = [_level(audit, section) for section in audit.sections]
    others = [_outcome(audit, section) for section, level in zip(audit.sections, levels, strict=True) if not level]
    run = {
        "tool": {"driver": {"name": "glasshouse", "version": audit.facts["versions"]["glasshouse"], "rules": rules}},
        "results": [_result(audit, number, level) for number, level in enumerate(levels) if level],
        "properties": {
            "verdict": str(audit.judgement.verdict),
            "headline": audit.judgement.headline,
            "depth": audit.facts["depth"],
            "otherSections": others,
        },
        "invocations": [{"executionSuccessful": not any(map(failed, audit.sections))}],
    }
    tree = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(_inert(tree), indent=1, allow_nan=False)


def _inert(tree: Any) -> Any:
    """The tree with every text in it inert."""
    if isinstance(tree, dict):
        return {key: _inert(item) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_inert(item) for item in tree]
    return inert(tree, 2 * len(tree)) if isinstance(tree, _Message) else inert(tree) if isinstance(tree, str) else tree


class _Message(str):
    """A text that is inert and escaped already."""

    __slots__ = ()


def _message(text: str) -> dict[str, str]:
    """A plain text message of SARIF, in which brackets would make a link and braces a placeholder."""
    escaped = re.sub(r"([\\\[\]])", r"\\\1", inert(text))
    return {"text": _Message(escaped.replace("{", "{{").replace("}", "}}"))}


def _outcome(audit: AuditLike, section: Any) -> dict[str, str]:
    """What became of a check: the verdict of its finding, or why there is none."""
    run = audit.runs.get(section.method)
    answer, text = (str(run.finding.verdict), run.finding.headline) if run else (section.state, section.why)
    return {"method": section.method, "role": section.role, "answer": answer, "text": text}


def _told(outcome: dict[str, str]) -> str:
    """The verdict's word, or why there is none, and the sentence: one form in every format."""
    return f"{outcome['answer']}: {outcome['text']}"


def _level(audit: AuditLike, section: Any) -> str:
    """The level of a section's alert; empty where it raises none."""
    answer = _outcome(audit, section)["answer"]
    if section.role == "adviser":
        return ""
    unanswered = ran(section) and (section.method not in audit.runs or answer == "inconclusive")
    return "note" if section.role == "judge" and unanswered else LEVELS.get(answer, "")


def _result(audit: AuditLike, number: int, level: str) -> dict[str, Any]:
    section, name = audit.sections[number], examined(audit.facts)
    outcome = _outcome(audit, section)
    artifact = {"artifactLocation": {"uri": quote(inert(name))}, "region": {"startLine": 1}}
    location = {"physicalLocation": artifact, "logicalLocations": [{"name": name, "kind": "module"}]}
    result: dict[str, Any] = {
        "ruleId": section.method,
        "ruleIndex": number,
        "level": level,
        "message": _message(_told(outcome)),
        "locations": [location],
        "properties": {"verdict": outcome["answer"]},
    }
    if section.method in audit.runs:
        result["partialFingerprints"] = {"glasshouse/key": str(audit.runs[section.method].facts["key"])}
    return result


def junit(audit: AuditLike) -> str:
    """JUnit's XML: one case for each method. What speaks against the model fails, what did not run or is inconclusive
    is skipped, an internal error is an error."""
    suite = Element("testsuite", name=f"glasshouse audit of {examined(audit.facts)}", tests=str(len(audit.sections)),
                    time=str(audit.facts["seconds"]), timestamp=str(audit.facts["started"]))  # fmt: skip
    counts = {"failures": 0, "errors": 0, "skipped": 0}
    for section in audit.sections:
        case = SubElement(suite, "testcase", classname="glasshouse", name=section.method, time=str(section.seconds))
        outcome = _outcome(audit, section)
        kind = _case_kind(section, outcome["answer"], answered=section.method in audit.runs)
        if kind:
            SubElement(case, kind, message=_told(outcome))
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[kind]] += 1
        else:
            SubElement(case, "system-out").text = _told(outcome)
    suite.attrib |= {key: str(value) for key, value in counts.items()}
    for element in suite.iter():
        element.attrib |= {key: _xml(value) for key, value in element.attrib.items()}
        element.text = element.text and _xml(element.text)
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case_kind(section: Any, answer: str, *, answered: bool) -> str:
    if not answered:
        return "error" if failed(section) else "skipped"
    if section.role == "adviser" or answer in ("pass", "described"):
        return ""
    return "failure" if answer in LEVELS else "skipped"


def _xml(text: str) -> str:
    """Inert, and only what XML 1.0 allows."""
    return re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", inert(text))


def model_card(audit: AuditLike) -> str:
    """A section for the model's readme."""
    return "\n".join(_lines(audit)) + "\n"


def _lines(audit: AuditLike) -> Iterator[str]:
    judgement, facts = audit.judgement, audit.facts
    yield "## Audit by glasshouse"
    yield ""
    yield f"**{judgement.verdict}**: {_quoted(judgement.headline)}"
    yield ""
    yield "| question | verdict | finding |"
    yield "|---|---|---|"
    for section in audit.sections:
        if section.method in audit.runs:
            finding = audit.runs[section.method].finding
            yield f"| {_quoted(section.question)} | {finding.verdict} | {_quoted(finding.headline)} |"
    for title, lines in (("What to do next", judgement.advice()), ("Not examined", judgement.not_examined())):
        yield ""
        yield f"{title}:"
        yield ""
        yield from (f"- {_quoted(line)}" for line in lines)
    yield ""
    yield _quoted(f"{facts['depth']} audit, glasshouse {facts['versions']['glasshouse']}, {facts['started'][:10]}:")
    yield ""
    for flag, each in inputs_of(facts).items():
        yield f"- {_quoted(flag)}: {_quoted(each['text'])}"


def _quoted(text: object) -> str:
    """As plain text in Markdown: on one line, with nothing that could become a link, a picture, a tag or a cell."""
    plain = escape(inert(text).replace("\n", " ").replace("\t", " "), quote=False)
    quoted = re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", plain)
    return quoted.replace("://", ":\\/\\/").replace("www.", "www\\.")
