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

LEVELS = {"concern": "warning", "fail": "error"}
"""Of SARIF, for what speaks against the model."""


def sarif(audit: Bound) -> str:
    """SARIF 2.1.0: one rule a question, one result for each answer that counts and speaks against the model, and a note
    for a judge that could not answer. Code scanning makes an alert of every result, of whatever kind it says it is, so
    all else stands among the run's properties."""
    rules = [
        {
            "id": one.method,
            "shortDescription": {"text": _message(inert(one.question))},
            "properties": {"role": one.role},
        }
        for one in audit.sections
    ]
    levels = [_level(audit, one) for one in audit.sections]
    properties = {
        "verdict": str(audit.judgement.verdict),
        "headline": inert(audit.judgement.headline),
        "depth": audit.facts["depth"],
        "otherSections": [_told(audit, one) for one, level in zip(audit.sections, levels, strict=True) if not level],
    }
    run = {
        "tool": {"driver": {"name": "glasshouse", "version": audit.facts["versions"]["glasshouse"], "rules": rules}},
        "results": [_result(audit, number, level) for number, level in enumerate(levels) if level],
        "properties": properties,
        "invocations": [{"executionSuccessful": all(one.state != "broke down" for one in audit.sections)}],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=1, allow_nan=False)


def _told(audit: Bound, section: Any) -> dict[str, str]:
    """What became of a question: the verdict of its answer, or why there is none."""
    answered = section.state == "answered"
    finding = audit.runs[section.method].finding if answered else None
    answer, text = (str(finding.verdict), finding.headline) if finding else (section.state, section.why)
    return {"method": section.method, "role": section.role, "answer": answer, "text": inert(text)}


def _level(audit: Bound, section: Any) -> str:
    """How loudly a section is told; nothing if it raises no alarm."""
    answer = _told(audit, section)["answer"]
    if section.role == "adviser":
        return ""
    silent = section.role == "judge" and answer in ("inconclusive", "refused", "broke down")
    return "note" if silent else LEVELS.get(answer, "")


def _result(audit: Bound, number: int, level: str) -> dict[str, Any]:
    section = audit.sections[number]
    told = _told(audit, section)
    name = inert(audit.facts["subjects"]["subject"]["name"])
    artifact = {"artifactLocation": {"uri": quote(name)}, "region": {"startLine": 1}}
    place = {"physicalLocation": artifact, "logicalLocations": [{"name": name, "kind": "module"}]}
    unanswered = f"{section.method} could not answer ({told['answer']}): " if level == "note" else ""
    made: dict[str, Any] = {
        "ruleId": section.method,
        "ruleIndex": number,
        "level": level,
        "message": {"text": _message(unanswered + told["text"])},
        "locations": [place],
    }
    if section.state == "answered":
        made["partialFingerprints"] = {"glasshouse/key": str(audit.runs[section.method].facts["key"])}
    return made


def _message(text: str) -> str:
    """As a plain text message of SARIF, in which brackets would make a link and braces a placeholder."""
    escaped = re.sub(r"([\\\[\]])", r"\\\1", text)
    return escaped.replace("{", "{{").replace("}", "}}")


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
            kind = "failure" if str(finding.verdict) in LEVELS else "skipped" if finding.verdict != "pass" else ""
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
            answer = "described" if one.role == "adviser" else finding.verdict
            yield f"| {_quoted(one.question)} | {answer} | {_quoted(finding.headline)} |"
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
