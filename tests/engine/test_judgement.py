"""A pass is earned, concern is never outvoted, and what was not examined is said."""

import pytest

from glasshouse.engine.judgement import Judgement, Section
from glasshouse.values.findings import Verdict
from juries import Heard


def judged(**said: str) -> Judgement:
    """`judged(judge="pass", witness="concern")`; `broken` and `missing` are states."""
    roles = {"judge": "judge", "second": "judge", "witness": "witness", "adviser": "adviser"}
    states = {"broken": "internal error", "missing": "not run", "refused": "refused"}
    whys = {"broken": "ZeroDivisionError: by zero", "missing": "needs --base", "refused": "give more pictures"}
    sections = tuple(
        Section(name, f"What says {name}?", roles[name], states.get(word, "answered"), whys.get(word, ""))
        for name, word in said.items()
    )
    return Judgement(sections, {name: Heard(name, word, "42%") for name, word in said.items() if word not in states})


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"judge": "pass"}, "pass"),
        ({"judge": "pass", "witness": "inconclusive"}, "pass"),
        ({"judge": "pass", "adviser": "concern"}, "pass"),
        ({"judge": "pass", "adviser": "broken"}, "pass"),
        ({"judge": "pass", "witness": "missing"}, "pass"),
        ({"judge": "pass", "second": "missing"}, "pass"),
        ({"judge": "pass", "second": "inconclusive"}, "inconclusive"),
        ({"judge": "pass", "witness": "broken"}, "inconclusive"),
        ({"judge": "broken"}, "inconclusive"),
        ({"judge": "refused"}, "inconclusive"),
        ({"judge": "pass", "second": "refused"}, "inconclusive"),
        ({"judge": "pass", "witness": "refused"}, "pass"),
        ({"judge": "inconclusive"}, "inconclusive"),
        ({"judge": "missing", "witness": "pass"}, "inconclusive"),
        ({"witness": "pass", "adviser": "pass"}, "inconclusive"),
        ({}, "inconclusive"),
        ({"judge": "pass", "witness": "concern"}, "concern"),
        ({"judge": "concern", "witness": "inconclusive"}, "concern"),
        ({"judge": "broken", "witness": "concern"}, "concern"),
        ({"judge": "concern", "witness": "fail"}, "fail"),
    ],
)
def test_what_many_answers_come_to(said: dict[str, str], verdict: str):
    assert judged(**said).verdict == verdict


def test_the_headline_carries_the_answer_that_decides():
    assert judged(witness="concern", judge="concern").headline == "There is reason for concern. The judge says 42%."
    assert judged(judge="pass", witness="concern").headline == "There is reason for concern. The witness says 42%."
    assert "No check that ran found anything against this model. The judge" in judged(judge="pass").headline
    assert judged(witness="pass").headline.endswith("No check ran that could clear it.")
    assert judged(judge="pass", witness="broken").headline.endswith(
        "Witness: internal error (ZeroDivisionError: by zero)."
    )
    refused = judged(judge="refused")
    assert refused.headline.endswith("Judge: refused (give more pictures).")
    assert "Supply what judge needs: give more pictures" in refused.advice()
    assert judged(judge="inconclusive", adviser="pass").headline.endswith("The judge says 42%.")


def test_what_speaks_against_it_is_told_first_and_numbers_have_their_doubt():
    made = judged(adviser="concern", judge="pass", witness="concern")
    assert [method for method, _ in made.headlines()] == ["witness", "judge", "adviser"]
    assert made.evidence() == [
        f"{name} ({verdict}): share of 42% 0.50 [0.28, 0.72] n=16; control 0.00 [0.00, 0.19] n=16"
        for name, verdict in (("judge", "pass"), ("witness", "concern"))
    ]
    assert made.advice()[0] == "Do not deploy it as it is."
    assert "Heed the witness: 42%." in made.advice()


def test_questions_that_were_not_asked_are_named_with_their_reason():
    made = judged(judge="missing", second="missing", witness="broken")
    assert made.not_examined() == ["judge, second: needs --base", "witness: internal error"]
    assert any("Report the internal error of witness" in line for line in made.advice())
    assert made.verdict is Verdict.INCONCLUSIVE
