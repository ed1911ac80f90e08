"""What an audit's statuses gate, and how runs and audits are shown, listed and compared when typed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import juries
from glasshouse.engine.audit import Audit
from hostile import assert_dead

SEEDLING = "organism:seedling"
pytestmark = pytest.mark.usefixtures("jury")


def folder(outcome) -> Path:
    (line,) = (line for line in outcome.out.splitlines() if line.startswith("Run:"))
    return Path(line.removeprefix("Run:").strip())


@pytest.mark.parametrize(("said", "status"), [("pass", 0), ("concern", 1), ("fail", 1), ("inconclusive", 3)])
def test_the_status_is_the_verdicts(typed, said: str, status: int):
    juries.says["judge"] = said
    assert typed("audit", SEEDLING).status == status


@pytest.mark.parametrize(
    ("said", "bar", "status"),
    [
        ("pass", "inconclusive", 0),
        ("inconclusive", "inconclusive", 1),
        ("inconclusive", "concern", 0),
        ("concern", "concern", 1),
        ("concern", "fail", 0),
        ("fail", "fail", 1),
        ("fail", "never", 0),
    ],
)
def test_a_gate_fails_from_where_it_is_told(typed, said: str, bar: str, status: int):
    juries.says["judge"] = said
    assert typed("audit", SEEDLING, "--fail-on", bar).status == status


@pytest.mark.parametrize("how", ["broken", "refused"])
def test_nobody_gets_past_a_gate_by_breaking_the_judge(typed, how: str):
    juries.says["judge"] = how
    assert typed("audit", SEEDLING, "--fail-on", "concern").status == 3
    assert typed("audit", SEEDLING, "--fail-on", "inconclusive").status == 1


def test_nor_by_breaking_a_witness(typed):
    juries.says["witness"] = "broken"
    assert typed("audit", SEEDLING, "--fail-on", "concern").status == 3


@pytest.mark.parametrize(("second", "status"), [("pass", 0), ("broken", 3), ("refused", 3), ("inconclusive", 0)])
def test_nor_by_breaking_one_of_two(typed, monkeypatch: pytest.MonkeyPatch, second: str, status: int):
    monkeypatch.setattr(juries, "sage", replace(juries.sage, role="judge"))
    juries.says["sage"] = second
    assert typed("audit", SEEDLING, "--depth", "thorough", "--fail-on", "concern").status == status
    assert typed("audit", SEEDLING, "--fail-on", "concern").status == 0  # a judge that was not asked breaks nothing
    assert typed("audit", SEEDLING, "--depth", "thorough", "--fail-on", "never").status == 0


def test_it_ends_with_the_verdict_the_page_and_what_to_type(typed):
    juries.says["witness"] = "concern"
    outcome = typed("audit", SEEDLING)
    lines = outcome.out.splitlines()
    assert lines[0].startswith("CONCERN  There is reason for concern.")
    assert all(len(line) <= 80 for line in lines if not line.startswith(("Run:", "Page:", "Next:")))
    made = folder(outcome)
    assert f"Page: {made / 'report.html'}" in lines
    assert lines[-1] == f"Next: glasshouse report {made}/judge"
    assert "judge      pass" in outcome.err
    shown = typed("report", made)
    assert shown.out.splitlines()[0] == lines[0]
    assert shown.status == 1
    assert shown.out.splitlines()[-1] == lines[-1]


def test_a_run_within_an_audit_names_the_page_it_is_shown_on(typed, monkeypatch: pytest.MonkeyPatch):
    made = folder(typed("audit", SEEDLING))
    part = typed("report", made / "judge")
    assert part.status == 0
    assert part.out.splitlines()[-2:] == [
        f"Page: {made / 'report.html'}",
        f"Next: glasshouse compare {made}/judge ANOTHER",
    ]
    monkeypatch.chdir(made / "judge")
    assert f"Page: {Path('..') / 'report.html'}" in typed("report", ".").out.splitlines()


def test_a_page_that_cannot_be_written_does_not_stop_the_listing(typed, tmp_path: Path):
    made = folder(typed("audit", SEEDLING))
    (tmp_path / "runs" / "index.html").mkdir()
    outcome = typed("report", "runs")
    assert (outcome.status, outcome.err) == (0, "")
    assert made.name in outcome.out
    assert "! no page: runs/index.html: cannot be written (Is a directory)" in outcome.out
    assert outcome.out.splitlines()[-1] == f"Next: glasshouse report {made}"


def test_json_is_all_of_it(typed):
    juries.says |= {"witness": "concern", "adviser": "broken"}
    outcome = typed("audit", SEEDLING, "--json")
    assert outcome.err == ""
    assert (outcome.json["verdict"], outcome.status) == ("concern", 1)
    by_method = {one["method"]: one for one in outcome.json["sections"]}
    assert by_method["witness"]["finding"]["text"] == juries.text
    assert by_method["adviser"]["state"] == "broke down"
    assert "adviser: broke down" in outcome.json["left_out"]
    assert Path(outcome.json["audit"]).is_dir()


def test_a_dry_run_is_what_from_takes(typed, tmp_path: Path):
    words = ("--depth", "thorough", "--base", SEEDLING, "--batch-size", "2")
    dry = typed("audit", SEEDLING, *words, "--dry-run")
    assert juries.asked == []
    (tmp_path / "asked.json").write_text(dry.out)
    again = typed("audit", "--from", "asked.json", "--json")
    assert sorted(juries.asked) == sorted(juries.NAMES)
    assert (again.json["depth"], again.json["options"]["batch_size"]) == ("thorough", 2)


@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--depth", "quick")], ids=" ".join)
@pytest.mark.parametrize(
    ("changed", "cure"),
    [
        ({"options": {"depth": "deep"}}, "there is no depth 'deep'; write one of quick, standard, thorough"),
        ({"options": {"depth": [1]}}, "there is no depth [1]"),
        (
            {"options": {"depth": "quick", "colour": 1}},
            "audit has no option 'colour'; its options are 'depth' and 'batch_size'",
        ),
        ({"opening": {"remote_code": True}}, "it asks for --remote-code, which no file may give leave to; type it"),
        ({"opening": {"download": True}}, "it asks for --download, which no file may give leave to; type it as well"),
    ],
    ids=str,
)
def test_a_file_is_taken_from_only_as_far_as_it_may_say(typed, tmp_path: Path, changed: dict, cure: str, words):
    tree = {"method": "audit", "models": {"subject": SEEDLING}, "data": {}, "options": {}, **changed}
    (tmp_path / "asked.json").write_text(json.dumps(tree))
    outcome = typed("audit", "--from", "asked.json", *words)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("glasshouse: --from asked.json: ")
    assert outcome.err.count("\n") == 1
    assert cure in outcome.err
    assert juries.asked == []


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ((), "audit needs a model"),
        (("organism:nobody",), "no such organism"),
        ((SEEDLING, "--depth", "deep"), "--depth"),
        ((SEEDLING, "--fail-on", "pass"), "--fail-on"),
        ((SEEDLING, "--limit", "0"), "--limit 0: must be at least 1"),
        ((SEEDLING, "--batch-size", "0"), "--batch-size 0: must be a number from 1 upwards"),
        ((SEEDLING, "--clean", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(typed, tmp_path: Path, words: tuple[str, ...], cure: str):
    outcome = typed("audit", *words)
    assert outcome.status == 2
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("glasshouse:"))
    assert cure in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_runs_is_listed_and_gets_a_page(typed, tmp_path: Path):
    juries.says["judge"] = "concern"
    made = folder(typed("audit", SEEDLING))
    typed("run", "judge", "--model", SEEDLING)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{}")
    outcome = typed("report", "runs")
    assert outcome.status == 0
    assert made.name in outcome.out
    assert "runs/broken cannot be read" in outcome.out
    page = (tmp_path / "runs" / "index.html").read_text()
    assert f'href="{made.name}/report.html"' in page
    assert "broken cannot be read" in page
    listed = typed("report", "runs", "--json").json
    assert [(one["name"], one["verdict"]) for one in listed] == [("judge", "concern"), ("quick audit", "concern")]
    assert typed("report", tmp_path / "nothing").status == 2
    (tmp_path / "spoiled" / "run").mkdir(parents=True)
    (tmp_path / "spoiled" / "run" / "run.json").write_text("{")
    assert typed("report", "spoiled").status == 0
    (tmp_path / "empty").mkdir()
    assert "holds no runs" in typed("report", "empty").err


def test_two_audits_are_set_side_by_side(typed, tmp_path: Path):
    first = folder(typed("audit", SEEDLING))
    juries.says["judge"] = "concern"
    second = folder(typed("audit", SEEDLING, "--base", SEEDLING))
    outcome = typed("compare", first, second, "--page", "both.html")
    assert outcome.status == 0
    assert "first: pass: the judge says half of it, 50%." in outcome.out
    assert "second: concern: the judge says half of it, 50%." in outcome.out
    assert "first: not answered" in outcome.out
    page = (tmp_path / "both.html").read_text()
    assert_dead(page)
    assert page.count("the judge says half of it, 50%.") == 2
    assert outcome.out.splitlines()[0].startswith("PASS  Nothing was found")
    assert "cannot be written" in typed("compare", first, second, "--page", tmp_path).err
    nowhere = typed("compare", first, second, "--page", "/dev/null/x.html")
    assert (nowhere.status, nowhere.out, nowhere.err.count("\n")) == (2, "", 1)
    assert "/dev/null/x.html: cannot be written" in nowhere.err
    found = typed("compare", first, second, "--json").json
    assert {"what": "verdict", "first": "pass", "second": "concern"} in found["judge"]


def test_an_audit_is_there_in_python_too(tmp_path: Path):
    import glasshouse as gh

    made = gh.audit(gh.open(SEEDLING), root=tmp_path)
    assert isinstance(made, Audit)
    assert sorted(made.runs) == ["adviser", "judge", "witness"]
    assert str(made.judgement.verdict) in made._repr_html_()
    assert json.loads((made.folder / "audit.json").read_text())["subjects"]["subject"]["name"] == SEEDLING
