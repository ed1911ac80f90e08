"""Every question that can be asked is asked once, none can cost another its answer, and a kill costs only one."""

import errno
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import audit_methods
import glasshouse as gh
from glasshouse.data.examples import Examples
from glasshouse.engine import audit_plan, runs
from glasshouse.engine import method as methods
from glasshouse.engine.audit import SURFACES, Audit, examine
from glasshouse.engine.binding import Request
from glasshouse.engine.runs import Run
from glasshouse.model.subject import Subject
from glasshouse.values.blocks import Heatmap, Table
from glasshouse.values.errors import BadInput
from hostile import TEXTS, assert_dead, controls

SEEDLING = "organism:seedling"
pytestmark = pytest.mark.usefixtures("only_audit_methods")


def ask(root: Path, depth: str = "quick", watch=None, **models: str) -> Audit:
    request = Request(
        "audit", {flag: (name,) for flag, name in {"model": SEEDLING, **models}.items()}, {"depth": depth}
    )
    return examine(request, root=root, command=f"glasshouse audit {SEEDLING}", watch=watch)


def test_what_can_be_asked_is_asked_and_the_rest_is_said(tmp_path: Path):
    made = ask(tmp_path)
    assert audit_methods.called == ["judge", "witness", "adviser"]
    assert {one.method: (one.state, one.why) for one in made.sections} == {
        "adviser": ("answered", ""),
        "judge": ("answered", ""),
        "relative": ("not run", "needs --base"),
        "sage": ("not run", "runs from --depth thorough"),
        "witness": ("answered", ""),
    }
    assert made.judgement.verdict == "pass"
    assert list(tmp_path.iterdir()) == [made.folder]
    kept = {"adviser", "judge", "witness"}
    assert {file.name for file in made.folder.iterdir()} == {"audit.json", *SURFACES, *kept}


def test_it_comes_back_from_disk(tmp_path: Path):
    made = ask(tmp_path)
    back = Audit.read(made.folder)
    assert back.sections == made.sections
    assert back.judgement.headline == made.judgement.headline
    assert {name: run.finding for name, run in back.runs.items()} == {n: r.finding for n, r in made.runs.items()}
    assert Run.read(made.folder / "judge").facts["command"] == f"glasshouse run judge --model {SEEDLING} --limit 160"


def test_deeper_audits_ask_more_and_a_base_lets_more_be_asked(tmp_path: Path):
    ask(tmp_path, "thorough", base=SEEDLING)
    assert sorted(audit_methods.called) == sorted(audit_methods.NAMES)


def test_one_batch_size_is_for_every_method_that_has_one(tmp_path: Path):
    request = Request("audit", {"model": (SEEDLING,)}, {"batch_size": 3})
    made = examine(request, root=tmp_path)
    assert made.facts["options"]["batch_size"] == 3
    assert made.runs["witness"].facts["options"]["batch_size"] == 3
    assert made.runs["witness"].facts["command"].endswith(" --batch-size 3")
    assert "batch" not in made.runs["judge"].facts["command"]
    assert ask(tmp_path).runs["witness"].facts["options"]["batch_size"] == 8
    one = examine(replace(request, options={"batch_size": 1}), root=tmp_path)
    states = {each.method: each.state for each in one.sections}
    assert (states["judge"], states["witness"], states["adviser"]) == ("answered", "refused", "answered")


def test_an_organism_that_is_on_no_shelf_is_asked_what_was_given(seedling: Subject, squares: Examples, tmp_path: Path):
    fresh = Subject(seedling.model, seedling.processor, "organism:never-grown")
    made = gh.audit(fresh, base=seedling, data=squares, root=tmp_path)
    assert {one.method for one in made.sections if one.state == "answered"} >= {"judge", "witness"}


def test_what_breaks_down_costs_its_own_section_only(tmp_path: Path):
    audit_methods.outcomes["adviser"] = "broken"
    made = ask(tmp_path)
    section = next(one for one in made.sections if one.method == "adviser")
    assert section.state == "internal error"
    assert section.why == "ZeroDivisionError: the division of half of it, 50%"
    assert "audit_methods.py" in section.trace
    assert audit_methods.called == ["judge", "witness", "adviser"]
    assert made.judgement.verdict == "pass"
    audit_methods.outcomes["witness"] = "broken"
    assert ask(tmp_path).judgement.verdict == "inconclusive"


def test_what_a_method_refuses_is_said(tmp_path: Path):
    audit_methods.outcomes["judge"] = "refused"
    made = ask(tmp_path)
    assert ("refused", "judge: this model is not supported; take another") in {
        (one.state, one.why) for one in made.sections
    }
    assert made.judgement.verdict == "inconclusive"
    assert not (made.folder / "judge").exists()


def test_a_kill_costs_at_most_the_question_in_flight(tmp_path: Path):
    audit_methods.outcomes["adviser"] = "interrupted"
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == [".unfinished"]
    audit_methods.outcomes.clear()
    audit_methods.called.clear()
    made = ask(tmp_path)
    assert audit_methods.called == ["adviser"]
    assert set(made.runs) == {"adviser", "judge", "witness"}
    assert list(tmp_path.iterdir()) == [made.folder]


def test_an_answer_to_another_question_is_not_taken_up(tmp_path: Path):
    audit_methods.outcomes["adviser"] = "interrupted"
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path)
    audit_methods.called.clear()
    audit_methods.outcomes.clear()
    ask(tmp_path, base=SEEDLING)
    assert audit_methods.called == ["judge", "relative", "witness", "adviser"]


def test_whoever_looks_on_sees_the_plan_and_each_end(tmp_path: Path):
    seen: list[tuple[str, str]] = []

    class Watch:
        def preflight(self, estimate):
            assert estimate.examples == 16

        def planned(self, sections):
            seen.extend(("planned", one.method) for one in sections if one.state == "answered")

        def doing(self, method, what, done, total):
            seen.append(("doing", method))

        def ended(self, section, finding):
            seen.append((str(finding.verdict), section.method))

    ask(tmp_path, watch=Watch())
    names = ["judge", "witness", "adviser"]
    each = [(what, name) for name in names for what in ("doing", "pass")]
    assert seen == [("planned", name) for name in names] + each


@pytest.mark.parametrize(
    ("request_", "fix"),
    [
        (Request("audit", {"model": (SEEDLING,)}, {"depth": "deep"}), "quick, standard, thorough"),
        (Request("audit", {"model": ("organism:nobody",)}), "no such organism"),
        (Request("audit", {"model": (SEEDLING,), "data": ("nowhere.jsonl",)}), "nowhere.jsonl"),
        (Request("audit", {"model": (SEEDLING,)}, limit=0), "--limit 0"),
        (Request("audit", {"model": (SEEDLING,)}, {"batch_size": 0}), "--batch-size 0"),
    ],
)
def test_bad_input_is_cured_and_leaves_nothing_behind(tmp_path: Path, request_: Request, fix: str):
    with pytest.raises(BadInput, match=fix):
        examine(request_, root=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
    assert audit_methods.called == []


def test_a_damaged_audit_is_refused(tmp_path: Path):
    made = ask(tmp_path)
    (made.folder / "audit.json").write_text("{")
    with pytest.raises(BadInput, match="not a whole audit"):
        Audit.read(made.folder)
    with pytest.raises(BadInput, match="not a whole audit"):
        Audit.read(tmp_path)


def test_an_answer_that_cannot_be_drawn_costs_its_own_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown = [Table.of("", {"a": [1]}), Heatmap("", torch.zeros(0, 0), (), ())]
    monkeypatch.setattr(audit_methods.RoleFinding, "blocks", lambda self: shown)
    page = (ask(tmp_path).folder / "report.html").read_text("utf-8")
    assert page.count(" cannot be drawn: ") == 3
    assert ">pass<" in page


def test_a_method_that_cannot_be_imported_costs_its_own_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def load(name: str):
        if name == "adviser":
            raise ImportError("no module named magic")
        return methods.load(name)

    monkeypatch.setattr(audit_plan, "load", load)
    made = ask(tmp_path)
    assert ("adviser", "internal error", "ImportError: no module named magic") in {
        (one.method, one.state, one.why) for one in made.sections
    }
    assert audit_methods.called == ["judge", "witness"]
    assert made.judgement.verdict == "pass"


def test_a_methods_own_trouble_with_a_file_is_its_own(tmp_path: Path):
    audit_methods.outcomes["witness"] = "unreadable"
    made = ask(tmp_path)
    section = next(one for one in made.sections if one.method == "witness")
    assert (section.state, section.why) == ("internal error", "OSError: image file is truncated")
    assert made.judgement.verdict == "inconclusive"


def test_a_full_disk_ends_the_audit_and_keeps_what_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write, done = runs._write, list[str]()

    def full(root, name, *args, **kwargs):
        done.append(name)
        if len(done) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(root, name, *args, **kwargs)

    monkeypatch.setattr(runs, "_write", full)
    with pytest.raises(BadInput, match=r"No space left on device.*run it again"):
        ask(tmp_path)
    assert audit_methods.called == ["judge", "witness"]
    audit_methods.called.clear()
    ask(tmp_path)
    assert audit_methods.called == ["witness", "adviser"]


# What others read


def test_sarif_and_junit_say_what_the_verdicts_are(tmp_path: Path):
    audit_methods.outcomes |= {"witness": "concern", "adviser": "broken"}
    made = ask(tmp_path)
    (run,) = json.loads((made.folder / "audit.sarif").read_text())["runs"]
    assert run["properties"]["verdict"] == "concern"
    assert {one["ruleId"]: one["level"] for one in run["results"]} == {"witness": "warning"}
    assert {one["method"]: one["answer"] for one in run["properties"]["otherSections"]} == {
        "adviser": "internal error",
        "judge": "pass",
        "relative": "not run",
        "sage": "not run",
    }
    assert all(run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"] for one in run["results"])
    suite = ElementTree.parse(made.folder / "junit.xml").getroot()
    assert {case.attrib["name"]: [child.tag for child in case] for case in suite} == {
        "adviser": ["error"],
        "judge": ["system-out"],
        "relative": ["skipped"],
        "sage": ["skipped"],
        "witness": ["failure"],
    }
    assert [suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", "2"]


def test_an_adviser_raises_no_alarm(tmp_path: Path):
    audit_methods.outcomes["adviser"] = "concern"
    made = ask(tmp_path)
    assert '"level": "warning"' not in (made.folder / "audit.sarif").read_text()
    assert "<failure" not in (made.folder / "junit.xml").read_text()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name, marks=[] if name in ("script", "colours", "lone surrogate") else [pytest.mark.slow])
        for name, text in TEXTS.items()
    ],
)  # tests of the page and of each format try every text; `make test-slow` writes an audit of each
def test_no_text_comes_alive_in_anything_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr(audit_methods, "text", text)
    monkeypatch.setattr(audit_methods, "drawn", True)
    audit_methods.outcomes |= {"witness": "concern", "judge": "broken"}
    made = ask(tmp_path)
    page = (made.folder / "report.html").read_text("utf-8")
    assert_dead(page)
    assert controls(page) <= {"\t"}
    assert len(page) < 3_000_000
    json.loads((made.folder / "audit.sarif").read_text("utf-8"))
    ElementTree.parse(made.folder / "junit.xml")
    card = (made.folder / "model-card.md").read_text("utf-8")
    assert controls(card) <= {"\t"}
    assert not {"<", "](", "!["} & {card[i : i + n] for i in range(len(card)) for n in (1, 2)}
    assert Audit.read(made.folder).judgement.verdict == "concern"
