"""Many models are audited as units: one table, one page, one status, and every broken line is named first."""

from pathlib import Path

import pytest
from pyarrow import parquet

import audit_methods
from glasshouse.engine.audit import Audit

SEEDLING = "organism:seedling"
pytestmark = pytest.mark.usefixtures("only_audit_methods")


def written(folder: Path, *lines: str) -> None:
    (folder / "list.txt").write_text("\n".join(lines))


def test_every_line_is_audited_into_one_table_and_one_page(command, tmp_path: Path):
    written(tmp_path, "# models that came in", SEEDLING, "", f"{SEEDLING} --base {SEEDLING} --limit 2  # with its base")
    audit_methods.outcomes["relative"] = "concern"
    outcome = command("screen", "list.txt", "--limit", 3, "--json")
    assert outcome.status == 1
    folder = Path(outcome.json["screen"])
    assert [model["verdict"] for model in outcome.json["models"]] == ["pass", "concern"]
    rows = parquet.read_table(folder / "screen.parquet").to_pylist()
    assert [(row["line"], row["verdict"], row["judge"], row["relative"]) for row in rows] == [
        (2, "pass", "pass", None), (4, "concern", "pass", "concern"),
    ]  # fmt: skip
    audits = [Audit.read(folder / row["folder"]) for row in rows]
    assert [audit.facts["options"]["limit"] for audit in audits] == [3, 2]  # a line's own option stands
    page = (folder / "index.html").read_text("utf-8")
    assert all(f'href="{row["folder"]}/report.html"' in page for row in rows)
    assert [made.name for made in (tmp_path / "runs").iterdir()] == [folder.name]


def test_a_model_that_cannot_be_audited_costs_its_own_row(command, tmp_path: Path):
    written(tmp_path, "organism:nobody", SEEDLING)
    outcome = command("screen", "list.txt", "--json")
    assert [model["verdict"] for model in outcome.json["models"]] == ["refused", "pass"]
    assert "no such organism" in outcome.json["models"][0]["headline"]
    assert outcome.status == 2
    page = Path(outcome.json["screen"]) / "index.html"
    assert "organism:nobody" in page.read_text("utf-8")
    text = command("report", page.parent)  # writes the page again
    assert "line 1" in text.out
    assert text.out.splitlines()[-1].startswith("Next: glasshouse report runs/")
    assert "organism:nobody" in page.read_text("utf-8")


def test_a_screen_in_which_every_model_is_refused_has_a_page(command, tmp_path: Path):
    written(tmp_path, "organism:nobody", "organism:nothing")
    outcome = command("screen", "list.txt")
    assert outcome.status == 2
    page = next(line for line in outcome.out.splitlines() if line.startswith("Page: "))
    assert "organism:nothing" in (tmp_path / page.removeprefix("Page:").strip()).read_text("utf-8")


def test_a_killed_screen_continues_with_what_is_left(command, tmp_path: Path):
    written(tmp_path, SEEDLING, f"{SEEDLING} --depth thorough")
    audit_methods.outcomes["sage"] = "interrupted"
    assert command("screen", "list.txt").status == 130
    audit_methods.outcomes.clear()
    audit_methods.called.clear()
    assert command("screen", "list.txt").status == 0
    assert audit_methods.called == ["judge", "sage", "witness", "adviser"]  # the first model is not audited again


@pytest.mark.parametrize(
    ("lines", "words", "fix"),
    [
        ((SEEDLING, "organism:x --depth deep"), (), "list.txt:2: "),
        (
            (f"{SEEDLING} --colour red", SEEDLING, "'open"),
            (),
            "list.txt:1: --colour: no such flag; see glasshouse audit --help; also broken: line 3",
        ),
        (("'open",), (), "list.txt:1: No closing quotation"),
        ((f"{SEEDLING} --runs elsewhere",), (), "list.txt:1: --runs belongs to the whole screen"),
        (("# nothing",), (), "list.txt: holds no model"),
        ((SEEDLING,), ("--limit", "0"), "list.txt"),
        ((SEEDLING,), ("--depth", "deep"), "list.txt:1: "),
    ],
)
def test_broken_lines_are_named_before_any_work(command, tmp_path: Path, lines: tuple, words: tuple, fix: str):
    written(tmp_path, *lines)
    outcome = command("screen", "list.txt", *words)
    assert outcome.status == 2
    if "0" not in words:  # a limit of 0 is refused by the audit, in its own row
        assert outcome.err.count("\n") == 1
        assert fix in outcome.err
        assert list(tmp_path.iterdir()) == [tmp_path / "list.txt"]
    assert audit_methods.called == []


def test_a_list_that_is_missing_is_said(command):
    assert "nowhere.txt: no such file; write a list" in command("screen", "nowhere.txt").err
