"""What goes to pipelines and hubs: only what speaks against the model raises an alarm, and no text comes alive."""

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from glasshouse.report.exchange import junit, model_card, sarif
from hostile import TEXTS, controls
from sample_findings import audit_with


def written(text: str = "half", **verdicts: str) -> dict[str, Any]:
    (run,) = json.loads(sarif(audit_with(text, **verdicts)))["runs"]
    return run


STATES = {"broken": "internal error", "missing": "not run", "refused": "refused"}


@pytest.mark.parametrize(
    ("verdicts", "alarms"),
    [
        ({"judge": "pass", "witness": "pass", "adviser": "concern"}, {}),
        ({"judge": "concern", "witness": "fail", "adviser": "described"}, {"judge": "warning", "witness": "error"}),
        ({"judge": "inconclusive", "witness": "concern"}, {"judge": "note", "witness": "warning"}),
        ({"judge": "refused", "witness": "inconclusive"}, {"judge": "note"}),
        ({"judge": "broken", "witness": "broken"}, {"judge": "note"}),
        ({"judge": "missing", "witness": "refused", "adviser": "broken"}, {}),
    ],
)
def test_a_result_is_an_alarm(verdicts: dict[str, str], alarms: dict[str, str]):
    """Code scanning shows every result as an alert; what raises none is told among the properties."""
    run = written(**verdicts)
    assert {result["ruleId"]: result["level"] for result in run["results"]} == alarms
    assert all(run["tool"]["driver"]["rules"][each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    others = {section["method"]: section["answer"] for section in run["properties"]["otherSections"]}
    assert others == {name: STATES.get(word, word) for name, word in verdicts.items() if name not in alarms}
    assert run["invocations"] == [{"executionSuccessful": "broken" not in verdicts.values()}]


def test_a_judge_that_could_not_answer_says_so():
    (note,) = written(judge="refused")["results"]
    assert note["message"]["text"] == "refused: half"


def test_what_was_examined_is_named_by_its_label():
    (result,) = written("a model", judge="fail")["results"]
    (location,) = result["locations"]
    assert location["logicalLocations"] == [{"name": "a model", "kind": "module"}]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "a%20model"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[here](https://evil.example)", r"\[here\](https://evil.example)"),
        ("{0} and {tool.driver}", "{{0}} and {{tool.driver}}"),
        (r"\[here\](https://evil.example)", r"\\\[here\\\](https://evil.example)"),
        ("\x1b[31m", r"\\x1b\[31m"),
    ],
)
def test_no_message_holds_a_link_or_a_placeholder(text: str, shown: str):
    (alarm,) = written(text, witness="concern")["results"]
    assert alarm["message"]["text"] == f"concern: the witness finds {shown}."


def test_no_text_comes_alive_in_any_format():
    for text in TEXTS.values():
        audit = audit_with(text, judge="refused", witness="concern", adviser="described")
        (run,) = json.loads(sarif(audit))["runs"]
        assert controls(json.dumps(run, ensure_ascii=False)) <= {"\t"}
        for message in (result["message"]["text"] for result in run["results"]):
            plain = re.sub(r"\\[\\\[\]]", "", message)
            assert not {"[", "]", "\\"} & set(plain)
            assert not {"{", "}"} & set(plain.replace("{{", "").replace("}}", ""))
        xml = junit(audit)
        assert controls(xml) <= {"\t"}
        assert [case.get("name") for case in ElementTree.fromstring(xml)] == ["judge", "witness", "adviser"]
        card = model_card(audit)
        assert controls(card) <= {"\t"}
        assert not re.search(r"<(?!!)|(?<!\\)\[|://", card)


def test_junit_counts_what_failed_what_was_skipped_and_what_broke():
    suite = ElementTree.fromstring(junit(audit_with(judge="fail", witness="inconclusive", adviser="broken")))
    assert [child.tag for case in suite for child in case] == ["failure", "skipped", "error"]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "1", "errors": "1", "skipped": "1",
    }  # fmt: skip
    suite = ElementTree.fromstring(junit(audit_with(judge="pass", adviser="described")))
    assert [child.tag for case in suite for child in case] == ["system-out", "system-out"]


def test_a_card_shows_each_verdict_by_its_word_and_what_was_examined():
    card = model_card(audit_with("a model", judge="pass", adviser="described"))
    assert [line.split(" | ")[1] for line in card.splitlines() if line.startswith("| What")] == ["pass", "described"]
    assert "- model: a model\n" in card
