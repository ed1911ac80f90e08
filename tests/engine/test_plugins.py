"""Is a kind of input from another package treated like our own: run, killed, resumed, reported, compared, audited?"""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import glasshouse as gh
import plugin_method
from glasshouse.engine import audit, audit_plan
from glasshouse.engine.audit import Audit
from glasshouse.engine.comparison import compare
from glasshouse.engine.index import entries
from glasshouse.engine.method import load
from glasshouse.engine.runs import Run, run
from glasshouse.values.errors import BadInput
from plugins import environment, kill_after_shards, shards


@pytest.fixture
def ledgers(installed: Path) -> ModuleType:
    return import_module("plugin_kind")


def written(folder: Path, *numbers: float, name: str = "ledger.txt") -> Path:
    file = folder / name
    file.write_text("\n".join(map(str, numbers)))
    return file


def test_the_command_line_runs_reports_and_compares_it(command, ledgers: ModuleType, tmp_path: Path):
    written(tmp_path, 1, 2, 3)
    written(tmp_path, 10, name="more.txt")
    first = command("run", "total", "--ledger", "ledger.txt", "--json").json
    assert first["headline"] == "The ledgers sum to 6."
    assert first["inputs"]["ledger"] == {
        "kind": "Ledger", "meaning": "the ledger to add up", "label": "ledger.txt (3 entries)",
        "text": "ledger.txt (3 entries)", "identity": first["inputs"]["ledger"]["identity"],
    }  # fmt: skip
    second = command(
        "run", "total", "--ledger", "ledger.txt", "--others", "more.txt", "more.txt", "--limit", 1, "--json"
    )
    assert second.json["headline"] == "The ledgers sum to 21."
    assert len(second.json["inputs"]["others"]["identity"]) == 2
    page = Path(first["run"], "report.html").read_text("utf-8")
    assert "ledger.txt (3 entries)" in page
    assert "sum to 6" in command("report", first["run"]).out
    differences = command("compare", first["run"], second.json["run"], "--json").json
    assert {"what": "headline", "first": "The ledgers sum to 6.", "second": "The ledgers sum to 21."} in differences
    listed, broken = entries(tmp_path / "runs")
    assert {entry.examined for entry in listed} == {"ledger.txt (1 entries)", "ledger.txt (3 entries)"}  # of one second
    assert broken == []


def test_a_dry_run_keeps_several_values(command, ledgers: ModuleType, tmp_path: Path):
    written(tmp_path, 1)
    dry = command("run", "total", "--ledger", "ledger.txt", "--others", "ledger.txt", "ledger.txt", "--dry-run")
    assert dry.json["inputs"] == {"ledger": "ledger.txt", "others": ["ledger.txt", "ledger.txt"]}
    (tmp_path / "asked.json").write_text(dry.out)
    assert command("run", "total", "--from", "asked.json", "--json").json["headline"] == "The ledgers sum to 3."


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ((), "total needs the ledger to add up: --ledger FILE (a text file with a number on each line)"),
        (("--ledger", "nowhere.txt"), "nowhere.txt: not a ledger"),
        (("--ledger", "a", "--ledger", "b"), "--ledger is typed 2 times; type it once"),
        (("--grid", "3"), "--grid belongs to recovery; see glasshouse run total --help"),
    ],
)
def test_mistakes_are_one_line_with_the_fix(command, ledgers: ModuleType, tmp_path: Path, words: tuple, fix: str):
    outcome = command("run", "total", *words)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert fix in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_values_of_the_kind_are_taken_in_python(ledgers: ModuleType, tmp_path: Path):
    made = run(ledgers.total, {"ledger": ledgers.Ledger("mine", (1.0, 2.0))}, root=tmp_path)
    assert Run.read(made.folder).finding == made.finding
    again = run("total", {"ledger": ledgers.Ledger("mine", (1.0, 2.5))}, root=tmp_path)
    assert "inputs.ledger.identity.digest" in {difference["what"] for difference in compare(made, again)}
    with pytest.raises(BadInput, match="ledger: str given, Ledger expected"):
        run(ledgers.total, {"ledger": "a name"}, root=tmp_path)
    with pytest.raises(BadInput, match="total takes no input 'model'; it takes ledger, others"):
        run(ledgers.total, {"model": 1}, root=tmp_path)


SLOW = """
from glasshouse.engine.method import load
from glasshouse.engine.runs import run
total = load("total")
import plugin_kind as ledgers
several = tuple(ledgers.Ledger(str(number), (float(number),)) for number in range(6))
run(total, {"ledger": ledgers.Ledger("first", (1.0,)), "others": several}, root="runs")
"""


def test_a_kill_costs_the_unit_in_flight(ledgers: ModuleType, installed: Path, tmp_path: Path):
    kill_after_shards(2, SLOW, tmp_path, environment(installed, **{plugin_method.DELAY: "0.3"}))
    root = tmp_path / "runs"
    done = len(shards(root))
    several = tuple(ledgers.Ledger(str(number), (float(number),)) for number in range(6))
    made = run(load("total"), {"ledger": ledgers.Ledger("first", (1.0,)), "others": several}, root=root)
    assert made.facts["resumed"] == done >= 2
    assert len(plugin_method.processed) == 7 - done
    assert made.finding.total == 16.0


def test_an_audit_asks_it_where_its_input_is_there(
    command, ledgers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    others = tuple(entry for entry in audit_plan.catalogue() if entry.module in ("plugin_kind", "plugin_method"))
    for module in (audit, audit_plan):
        monkeypatch.setattr(module, "catalogue", lambda: others)
    ledger = written(tmp_path, 1, 2)
    with pytest.raises(BadInput, match="audit takes no input 'model'"):
        gh.audit("organism:seedling", root=tmp_path / "runs")
    monkeypatch.setattr(audit_plan, "EXAMINED", "ledger")  # what these methods are about
    made = audit.examine(audit.Request("audit", {"ledger": (str(ledger),)}), root=tmp_path / "runs")
    assert {section.method: section.state for section in made.sections} == {"total": "answered", "count": "not run"}
    assert Audit.read(made.folder).judgement.verdict == "pass"
    facts = json.loads((made.folder / "audit.json").read_text("utf-8"))
    assert facts["inputs"]["ledger"]["label"].endswith("(2 entries)")
    for name in ("report.html", "audit.sarif", "junit.xml", "model-card.md"):
        assert (made.folder / name).stat().st_size > 100


def test_inputs_that_clash_are_refused_with_both_methods(ledgers: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """Two methods may not take different kinds under one flag."""
    from dataclasses import replace

    total, lens = load("total"), load("lens")
    clashing = replace(lens, inputs=(replace(lens.inputs[0], flag="ledger"),))
    with pytest.raises(BadInput, match="--ledger: lens takes Subject and total Ledger under one name"):
        audit_plan.Methods((total, clashing), ()).inputs()
