"""What do a pipeline, a hub and a model's readme want of an audit? SARIF, JUnit's XML, and a few lines of Markdown.

Whatever a model or a data set said is made inert, and escaped by the library that writes the format.
"""

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from glasshouse.report.html import Bound
from glasshouse.report.inert import inert

LEVELS = {"pass": "none", "concern": "warning", "fail": "error", "inconclusive": "none"}
"""SARIF knows levels for what fails only."""
KINDS = {"pass": "pass", "concern": "fail", "fail": "fail", "inconclusive": "open"}
AGAINST = ("concern", "fail")


def sarif(audit: Bound) -> str:
    """SARIF 2.1.0: one rule a question, one result an answer. A question that counts for nothing (an adviser's) raises
    no alarm."""
    rules = [
        {"id": one.method, "shortDescription": {"text": inert(one.question)}, "properties": {"role": one.role}}
        for one in audit.sections
    ]
    verdict = str(audit.judgement.verdict)
    run = {
        "tool": {"driver": {"name": "glasshouse", "version": audit.facts["versions"]["glasshouse"], "rules": rules}},
        "results": [_result(audit, one, number) for number, one in enumerate(audit.sections)],
        "properties": {"verdict": verdict, "headline": inert(audit.judgement.headline), "depth": audit.facts["depth"]},
        "invocations": [{"executionSuccessful": all(one.state != "broke down" for one in audit.sections)}],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False)


def _result(audit: Bound, section: Any, number: int) -> dict[str, Any]:
    card = audit.facts["subjects"]["subject"]
    artifact = {"artifactLocation": {"uri": quote(inert(card["name"]))}, "region": {"startLine": 1}}
    place = {"physicalLocation": artifact, "logicalLocations": [{"name": inert(card["name"]), "kind": "module"}]}
    made: dict[str, Any] = {"ruleId": section.method, "ruleIndex": number, "locations": [place]}
    if section.state in ("not asked", "refused"):
        return {**made, "kind": "notApplicable", "level": "none", "message": {"text": inert(section.why)}}
    if section.state == "broke down":
        return {**made, "kind": "open", "level": "none", "message": {"text": inert(section.why)}}
    finding = audit.runs[section.method].finding
    verdict = str(finding.verdict)
    quiet = section.role == "adviser"
    return {
        **made,
        "kind": "informational" if quiet else KINDS[verdict],
        "level": "none" if quiet else LEVELS[verdict],
        "message": {"text": inert(finding.headline)},
        "partialFingerprints": {"glasshouse/key": str(audit.runs[section.method].facts["key"])},
    }


def junit(audit: Bound) -> str:
    """JUnit's XML: one case a question. What speaks against the model fails, what was not asked or is not sure is
    skipped, what broke down is an error."""
    name = inert(audit.facts["subjects"]["subject"]["name"])
    suite = Element("testsuite", name=f"glasshouse audit of {_plain(name)}", tests=str(len(audit.sections)),
                    time=str(audit.facts["seconds"]), timestamp=str(audit.facts["started"]))  # fmt: skip
    counts: dict[str, int] = {"failures": 0, "errors": 0, "skipped": 0}
    for one in audit.sections:
        case = SubElement(suite, "testcase", classname="glasshouse", name=one.method, time=str(one.seconds))
        finding = audit.runs[one.method].finding if one.state == "answered" else None
        text = _plain(inert(finding.headline if finding else one.why))
        kind = {"answered": "", "broke down": "error"}.get(one.state, "skipped")
        if finding and one.role != "adviser":
            kind = "failure" if str(finding.verdict) in AGAINST else "skipped" if finding.verdict != "pass" else ""
        if kind:
            SubElement(case, kind, message=text)
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[kind]] += 1
        else:
            SubElement(case, "system-out").text = text
    suite.attrib |= {key: str(value) for key, value in counts.items()}
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _plain(text: str) -> str:
    """What XML 1.0 allows."""
    return re.sub("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def model_card(audit: Bound) -> str:
    """A section for the model's readme."""
    return "\n".join(_lines(audit)) + "\n"


def _lines(audit: Bound) -> Iterator[str]:
    judgement, facts = audit.judgement, audit.facts
    card = facts["subjects"]["subject"]
    yield "## Audit by glasshouse"
    yield ""
    yield f"**{judgement.verdict}**: {_quoted(judgement.headline)}"
    yield ""
    yield "| question | answer | |"
    yield "|---|---|---|"
    for one in audit.sections:
        if one.state == "answered":
            finding = audit.runs[one.method].finding
            yield f"| {_quoted(one.question)} | {finding.verdict} | {_quoted(finding.headline)} |"
    for title, lines in (("What to do next", judgement.advice()), ("Not examined", judgement.left_out())):
        yield ""
        yield f"{title}:"
        yield ""
        yield from (f"- {_quoted(line)}" for line in lines)
    yield ""
    beside = [f"{name} {_quoted(one['name'])}" for name, one in facts["subjects"].items() if name != "subject"]
    yield (
        f"Weights `{card['weights'][:16]}`{' against ' + ', '.join(beside) if beside else ''}; {facts['depth']} audit "
        f"with glasshouse {facts['versions']['glasshouse']}, {facts['started'][:10]}."
    )


def _quoted(text: object) -> str:
    """As plain text in Markdown: on one line, with nothing that could become a link, a picture, a tag or a cell."""
    plain = escape(inert(text).replace("\n", " ").replace("\t", " "), quote=False)
    quoted = re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", plain)
    return quoted.replace("://", ":\\/\\/").replace("www.", "www\\.")
