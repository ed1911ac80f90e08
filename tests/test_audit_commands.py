"""What an audit's statuses gate, and how runs and audits are shown, listed and compared when typed."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import audit_methods
from glasshouse.audit_commands import _gate
from glasshouse.engine.audit import Audit
from hostile import Page, assert_dead, controls
from sample_findings import audit_with

SEEDLING = "organism:seedling"
pytestmark = pytest.mark.usefixtures("only_audit_methods")


def folder(outcome) -> Path:
    (line,) = (line for line in outcome.out.splitlines() if line.startswith("Run:"))
    return Path(line.removeprefix("Run:").strip())


@pytest.mark.parametrize(("verdict", "status"), [("fail", 1), ("inconclusive", 3)])
def test_the_status_is_the_verdicts(command, verdict: str, status: int):
    audit_methods.outcomes["judge"] = verdict
    assert command("audit", SEEDLING).status == status


@pytest.mark.parametrize(
    ("verdicts", "bar", "status"),
    [
        ({"judge": "pass"}, "inconclusive", 0),
        ({"judge": "inconclusive"}, "inconclusive", 1),
        ({"judge": "inconclusive"}, "concern", 0),
        ({"judge": "concern"}, "concern", 1),
        ({"judge": "concern"}, "fail", 0),
        ({"judge": "fail"}, "fail", 1),
        ({"judge": "fail"}, "never", 0),
        # breaking a method does not pass the gate
        ({"judge": "broken"}, "concern", 3),
        ({"judge": "broken"}, "inconclusive", 1),
        ({"judge": "refused"}, "concern", 3),
        ({"judge": "pass", "witness": "broken"}, "concern", 3),
        ({"judge": "pass", "witness": "refused"}, "concern", 0),
        ({"judge": "pass", "adviser": "broken"}, "concern", 0),
        ({"judge": "pass", "judge2": "broken"}, "concern", 3),
        ({"judge": "pass", "judge2": "refused"}, "concern", 3),
        ({"judge": "pass", "judge2": "inconclusive"}, "concern", 0),
        ({"judge": "pass", "judge2": "missing"}, "concern", 0),
        ({"judge": "pass", "judge2": "broken"}, "never", 0),
    ],
    ids=str,
)
def test_a_gate_fails_from_the_verdict_it_names(verdicts: dict[str, str], bar: str, status: int):
    assert _gate(audit_with(**verdicts), bar) == status


def test_the_gate_sets_the_exit_status(command):
    audit_methods.outcomes["judge"] = "inconclusive"
    assert command("audit", SEEDLING, "--fail-on", "inconclusive").status == 1


def test_a_description_has_one_word_everywhere(command, tmp_path: Path):
    audit_methods.outcomes["adviser"] = "described"
    described = command("run", "adviser", "--model", SEEDLING)
    assert described.status == 0
    assert described.out.startswith("DESCRIBED  ")
    assert command("report", folder(described), "--json").json["verdict"] == "described"
    assert '<span class="verdict described">described</span>' in (folder(described) / "report.html").read_text()
    audited = command("audit", SEEDLING)
    assert [line.split()[1] for line in audited.out.splitlines() if line.startswith("adviser ")] == ["described"]
    assert "adviser    described" in audited.err
    assert '<span class="verdict small described">described</span>' in (folder(audited) / "report.html").read_text()
    assert "first: described: " in command("compare", folder(audited), folder(audited)).out
    listed = command("report", "runs")
    assert "described" in listed.out
    assert '<span class="verdict small described">described</span>' in (tmp_path / "runs" / "index.html").read_text()


HOSTILE = "\x1b]0;mine\x07\x1b[2J\u202e'\"$(touch pwned)`touch pwned`\nPASS  all is well\n../.."


def changed(tree: Any, keep: tuple[str, ...]) -> Any:
    """The tree with every text in it hostile, but for what must be right for the folder to be read at all."""
    if isinstance(tree, dict):
        return {key: item if key in keep else changed(item, keep) for key, item in tree.items()}
    if isinstance(tree, list):
        return [changed(item, keep) for item in tree]
    return HOSTILE if isinstance(tree, str) else tree


def assert_harmless(outcome, *, suggests: str = "") -> None:
    """Nothing acts on the terminal, no line is a stranger's, and the suggested command names what it should."""
    assert controls(outcome.out + outcome.err) == set()
    assert not any(line.startswith(("PASS", "..")) for line in (outcome.out + outcome.err).splitlines())
    last = outcome.out.splitlines()[-1:] or [""]
    assert not suggests or shlex.split(last[0].removeprefix("Next: "))[:3] == ["glasshouse", "report", suggests]
    assert not Path("pwned").exists()


def test_a_folder_of_a_stranger_acts_on_nothing(command, tmp_path: Path):
    audit_methods.outcomes["judge"] = "concern"
    audit, run = folder(command("audit", SEEDLING)), folder(command("run", "judge", "--model", SEEDLING))
    kept = ("name", "is", "answer", "method", "role", "state", "depth")
    for file in (run / "run.json", audit / "judge" / "run.json", audit / "audit.json"):
        file.write_text(json.dumps(changed(json.loads(file.read_text()), kept)))
    named = Path("runs") / "$(touch pwned) '\"\x1b[2J\nPASS  all is well"
    run.rename(named)
    for words in (("report", named), ("report", audit), ("report", audit / "judge"), ("compare", named, named),
                  ("compare", audit, audit), ("compare", named, audit / "judge")):  # fmt: skip
        assert_harmless(command(*words))
    listed = command("report", "runs")
    assert_harmless(listed)
    index = Page((tmp_path / "runs" / "index.html").read_text())
    assert not index.tags & {"script", "img", "form"}
    assert all(link.endswith("/report.html") and ":" not in link for link in index.values("href")[1:])
    plain = tmp_path / "runs" / "it's; $(touch pwned)"
    named.rename(plain)
    shown = command("report", plain)
    assert shlex.split(shown.out.splitlines()[-1]) == ["Next:", "glasshouse", "compare", str(plain), "ANOTHER"]


@pytest.mark.parametrize("name", ["../..", "..", "/etc", "judge/../../elsewhere", HOSTILE, ""])
def test_a_name_read_from_disk_never_becomes_a_path(command, name: str):
    audit, run = folder(command("audit", SEEDLING)), folder(command("run", "judge", "--model", SEEDLING))
    tree = json.loads((audit / "audit.json").read_text())
    tree["sections"][0]["method"] = name
    (audit / "audit.json").write_text(json.dumps(tree))
    facts = json.loads((run / "run.json").read_text())
    facts["method"]["name"] = name
    (run / "run.json").write_text(json.dumps(facts))
    for outcome in (command("report", audit), command("report", run)):
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert_harmless(outcome)


def test_it_ends_with_the_verdict_the_page_and_what_to_type(command):
    audit_methods.outcomes["witness"] = "concern"
    outcome = command("audit", SEEDLING)
    lines = outcome.out.splitlines()
    assert lines[0].startswith("CONCERN  There is reason for concern.")
    assert all(len(line) <= 80 for line in lines if not line.startswith(("Run:", "Page:", "Next:")))
    made = folder(outcome)
    assert f"Page: {made / 'report.html'}" in lines
    assert lines[-1] == f"Next: glasshouse report {made}/judge"
    assert "judge      pass" in outcome.err
    shown = command("report", made)
    assert shown.out.splitlines()[0] == lines[0]
    assert shown.status == 1
    assert shown.out.splitlines()[-1] == lines[-1]


def test_a_run_within_an_audit_names_the_page_it_is_shown_on(command, monkeypatch: pytest.MonkeyPatch):
    made = folder(command("audit", SEEDLING))
    part = command("report", made / "judge")
    assert part.status == 0
    assert part.out.splitlines()[-2:] == [
        f"Page: {made / 'report.html'}",
        f"Next: glasshouse compare {made}/judge ANOTHER",
    ]
    monkeypatch.chdir(made / "judge")
    assert f"Page: {Path('..') / 'report.html'}" in command("report", ".").out.splitlines()


def test_a_page_that_cannot_be_written_does_not_stop_the_listing(command, tmp_path: Path):
    made = folder(command("audit", SEEDLING))
    (tmp_path / "runs" / "index.html").mkdir()
    outcome = command("report", "runs")
    assert (outcome.status, outcome.err) == (0, "")
    assert made.name in outcome.out
    assert "! no page: runs/index.html: cannot be written (Is a directory)" in outcome.out
    assert outcome.out.splitlines()[-1] == f"Next: glasshouse report {made}"


def test_json_is_all_of_it(command):
    audit_methods.outcomes |= {"witness": "concern", "adviser": "broken"}
    outcome = command("audit", SEEDLING, "--json")
    assert outcome.err == ""
    assert (outcome.json["verdict"], outcome.status) == ("concern", 1)
    by_method = {one["method"]: one for one in outcome.json["sections"]}
    assert by_method["witness"]["finding"]["text"] == audit_methods.text
    assert by_method["adviser"]["state"] == "internal error"
    assert "adviser: internal error" in outcome.json["not_examined"]
    assert Path(outcome.json["audit"]).is_dir()


def test_a_dry_run_is_what_from_takes(command, tmp_path: Path):
    words = ("--depth", "thorough", "--base", SEEDLING, "--batch-size", "2")
    dry = command("audit", SEEDLING, *words, "--dry-run")
    assert audit_methods.called == []
    (tmp_path / "asked.json").write_text(dry.out)
    again = command("audit", "--from", "asked.json", "--json")
    assert sorted(audit_methods.called) == sorted(audit_methods.NAMES)
    assert (again.json["depth"], again.json["options"]["batch_size"]) == ("thorough", 2)


@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=" ".join)
@pytest.mark.parametrize(
    ("changed", "fix"),
    [
        ({"options": {"depth": "deep"}}, "there is no depth 'deep'; write one of quick, standard, thorough"),
        ({"options": {"depth": [1]}}, "there is no depth [1]"),
        (
            {"options": {"depth": "quick", "colour": 1}},
            "audit has no option 'colour'; its options are 'depth' and 'batch_size'",
        ),
        ({"opening": {"remote_code": True}}, "it asks for --remote-code, which no file may permit; type it"),
        ({"opening": {"download": True}}, "it asks for --download, which no file may permit; type it as well"),
    ],
    ids=str,
)
def test_a_file_is_taken_from_only_as_far_as_it_may_say(command, tmp_path: Path, changed: dict, fix: str, words):
    tree = {"method": "audit", "inputs": {"model": SEEDLING}, "options": {}, **changed}
    (tmp_path / "asked.json").write_text(json.dumps(tree))
    outcome = command("audit", "--from", "asked.json", *words)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("glasshouse: --from asked.json: ")
    assert outcome.err.count("\n") == 1
    assert fix in outcome.err
    assert audit_methods.called == []


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ((), "audit needs a model"),
        (("organism:nobody",), "no such organism"),
        ((SEEDLING, "--depth", "deep"), "--depth"),
        ((SEEDLING, "--fail-on", "pass"), "--fail-on"),
        ((SEEDLING, "--limit", "0"), "--limit 0: must be at least 1"),
        ((SEEDLING, "--batch-size", "0"), "--batch-size 0: must be a number from 1 upwards"),
        ((SEEDLING, "--clean", "nowhere.jsonl"), "--clean: no such flag"),
        ((SEEDLING, "--seed", "3"), "--seed belongs to judge, relative, sage and adviser"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(command, tmp_path: Path, words: tuple[str, ...], fix: str):
    outcome = command("audit", *words)
    assert outcome.status == 2
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("glasshouse:"))
    assert fix in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_runs_is_listed_and_gets_a_page(command, tmp_path: Path):
    audit_methods.outcomes["judge"] = "concern"
    made = folder(command("audit", SEEDLING))
    command("run", "judge", "--model", SEEDLING)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{}")
    outcome = command("report", "runs")
    assert outcome.status == 0
    assert made.name in outcome.out
    assert "runs/broken cannot be read" in outcome.out
    page = (tmp_path / "runs" / "index.html").read_text()
    assert f'href="{made.name}/report.html"' in page
    assert "broken cannot be read" in page
    listed = command("report", "runs", "--json").json
    entries = {(entry["name"], entry["verdict"]) for entry in listed}  # of one second, so without an order
    assert entries == {("judge", "concern"), ("quick audit", "concern")}
    assert len(listed) == 2
    assert command("report", tmp_path / "nothing").status == 2
    (tmp_path / "spoiled" / "run").mkdir(parents=True)
    (tmp_path / "spoiled" / "run" / "run.json").write_text("{")
    assert command("report", "spoiled").status == 0
    (tmp_path / "empty").mkdir()
    assert "holds no runs" in command("report", "empty").err


def test_two_audits_are_set_side_by_side(command, tmp_path: Path):
    first = folder(command("audit", SEEDLING))
    audit_methods.outcomes["judge"] = "concern"
    second = folder(command("audit", SEEDLING, "--base", SEEDLING))
    outcome = command("compare", first, second, "--page", "both.html")
    assert outcome.status == 0
    assert "first: pass: the judge finds half of it, 50%." in outcome.out
    assert "second: concern: the judge finds half of it, 50%." in outcome.out
    assert "first: not answered" in outcome.out
    page = (tmp_path / "both.html").read_text()
    assert_dead(page)
    assert page.count("the judge finds half of it, 50%.") == 2
    assert outcome.out.splitlines()[0].startswith("PASS  No check that ran")
    assert "cannot be written" in command("compare", first, second, "--page", tmp_path).err
    nowhere = command("compare", first, second, "--page", "/dev/null/x.html")
    assert (nowhere.status, nowhere.out, nowhere.err.count("\n")) == (2, "", 1)
    assert "/dev/null/x.html: cannot be written" in nowhere.err
    found = command("compare", first, second, "--json").json
    assert {"what": "verdict", "first": "pass", "second": "concern"} in found["judge"]


def test_an_audit_is_there_in_python_too(tmp_path: Path):
    import glasshouse as gh

    made = gh.audit(gh.open(SEEDLING), root=tmp_path)
    assert isinstance(made, Audit)
    assert sorted(made.runs) == ["adviser", "judge", "witness"]
    assert str(made.judgement.verdict) in made._repr_html_()
    assert json.loads((made.folder / "audit.json").read_text())["inputs"]["model"]["identity"]["name"] == SEEDLING
