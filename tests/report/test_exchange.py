"""What goes to pipelines and hubs: only what speaks against the model raises an alarm, and no text comes alive."""

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from glasshouse.engine.judgement import Judgement, Section
from glasshouse.report.exchange import model_card, sarif
from hostile import TEXTS, controls
from juries import Heard

STATES = {"broken": "broke down", "missing": "not asked", "refused": "refused"}


def bound(text: str = "half", **said: str) -> Any:
    """`bound(judge="pass", adviser="concern")`: an audit of which nothing is on disk."""
    sections = tuple(
        Section(name, f"What {name}?", name, STATES.get(word, "answered"), text if word in STATES else "")
        for name, word in said.items()
    )
    findings = {name: Heard(name, word, text) for name, word in said.items() if word not in STATES}
    facts = {
        "versions": {"glasshouse": "1"},
        "depth": "quick",
        "started": "2026-11-21T09:30:05+00:00",
        "subjects": {"subject": {"name": text, "weights": "0" * 64}},
    }
    return SimpleNamespace(
        sections=sections,
        facts=facts,
        judgement=Judgement(sections, findings),
        runs={name: SimpleNamespace(finding=one, facts={"key": "k"}) for name, one in findings.items()},
    )


def written(text: str = "half", **said: str) -> dict[str, Any]:
    (run,) = json.loads(sarif(bound(text, **said)))["runs"]
    return run


@pytest.mark.parametrize(
    ("said", "alarms"),
    [
        ({"judge": "pass", "witness": "pass", "adviser": "concern"}, {}),
        ({"judge": "concern", "witness": "fail"}, {"judge": "warning", "witness": "error"}),
        ({"judge": "inconclusive", "witness": "concern"}, {"judge": "note", "witness": "warning"}),
        ({"judge": "refused", "witness": "inconclusive"}, {"judge": "note"}),
        ({"judge": "broken", "witness": "broken"}, {"judge": "note"}),
        ({"judge": "missing", "witness": "refused", "adviser": "broken"}, {}),
    ],
)
def test_a_result_is_an_alarm(said: dict[str, str], alarms: dict[str, str]):
    """Code scanning shows every result as an alert; what raises none is told among the properties."""
    run = written(**said)
    assert {one["ruleId"]: one["level"] for one in run["results"]} == alarms
    assert all(run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"] for one in run["results"])
    others = {one["method"]: one["answer"] for one in run["properties"]["otherSections"]}
    assert others == {name: STATES.get(word, word) for name, word in said.items() if name not in alarms}


def test_a_judge_that_could_not_answer_says_so():
    (note,) = written(judge="refused")["results"]
    assert note["message"]["text"] == "judge could not answer (refused): half"


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
    assert alarm["message"]["text"] == f"the witness says {shown}."


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_comes_alive_in_a_message(text: str):
    for one in written(text, judge="refused", witness="concern")["results"]:
        said = one["message"]["text"]
        assert controls(said) <= {"\t"}
        plain = re.sub(r"\\[\\\[\]]", "", said)
        assert not {"[", "]", "\\"} & set(plain)
        assert not {"{", "}"} & set(plain.replace("{{", "").replace("}}", ""))


def test_a_card_does_not_pass_the_model_on_an_adviser():
    lines = model_card(bound(judge="pass", adviser="pass")).splitlines()
    assert [line.split(" | ")[1] for line in lines if line.startswith("| What")] == ["pass", "described"]
