"""On a terminal nothing a stranger says is obeyed, and eighty columns are enough."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.padding import Padding
from rich.progress import Progress, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from glasshouse.report.console import InertConsole, console
from glasshouse.report.live import BarView, LineView
from glasshouse.report.terminal import MOST_ROWS, show_audit, show_block, show_finding, show_rows
from glasshouse.values.blocks import Transcript, Turn
from glasshouse.values.findings import Finding, Verdict
from hostile import TEXTS, controls
from sample_findings import TextFinding, audit_with, every_block

OURS = re.compile(r"\x1b\[[0-9;]*m")
"""Colour, the one thing we say to a terminal."""


def screen(terminal: bool = False, width: int = 80) -> InertConsole:
    colours = "truecolor" if terminal else None
    return InertConsole(file=io.StringIO(), width=width, force_terminal=terminal, color_system=colours)


def printed(show, *what, terminal: bool = False, width: int = 80) -> str:
    target = screen(terminal, width)
    show(target, *what)
    return target.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue] - the StringIO above


def widest(text: str) -> int:
    return max((cell_len(line) for line in text.split("\n")), default=0)


@pytest.mark.parametrize("terminal", [False, True], ids=["a file", "a terminal"])
def test_no_text_is_obeyed(terminal: bool):
    for text in TEXTS.values():
        out = printed(show_finding, TextFinding(text, tuple(every_block("word"))), terminal=terminal)
        assert ("\x1b" in out) == terminal
        out = OURS.sub("", out)
        assert controls(out) == set()
        assert widest(out) <= 80
        assert len(out) < 200_000


class Raw:
    """A renderable that yields what it likes."""

    def __rich_console__(self, *_):
        yield Segment("\x1b[2Jraw")


ESCAPE = "\x1b]0;mine\u202eFAIL\nPASS  all is well"
WRITTEN_OUT = r"\x1b]0;mine\x202eFAIL⏎PASS  all is well"


def tabled(text: str) -> Table:
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    return table


@pytest.mark.parametrize(
    "what",
    [ESCAPE, Text(ESCAPE), Text.assemble(("ours", "bold"), ESCAPE), Padding(ESCAPE, (0, 2)), tabled(ESCAPE)],
    ids=["a string", "a text", "a styled text", "padding", "a table"],
)
def test_whatever_is_printed_is_inert_and_begins_no_line(what):
    out = printed(InertConsole.print, what, width=200)
    assert controls(out) == set()
    assert WRITTEN_OUT in out
    assert not re.search("^PASS", out, re.MULTILINE)


def test_nothing_gets_round_the_console():
    assert printed(InertConsole.print, Raw()) == "\\x1b[2Jraw"
    assert printed(InertConsole.unbroken, ESCAPE * 20).count("\n") == 1


def test_a_line_of_a_transcript_is_indented():
    out = printed(show_block, Transcript("", (Turn("model", "yes\nPASS  all is well"),)))
    assert out.splitlines()[0] == "model: yes"
    assert out.splitlines()[1].startswith("    PASS")


def test_a_long_headline_begins_no_line():
    out = printed(show_finding, TextFinding(f"{'x' * 67} PASS  all is well", ()))
    assert [line[:9] for line in out.splitlines()] == ["CONCERN  ", " " * 9]


def test_the_progress_of_an_audit_is_inert_and_tells_each_verdict():
    audit = audit_with(ESCAPE, judge="concern", witness="broken", adviser="described")

    def follow(view) -> None:
        view.planned(audit.sections)
        for section in audit.sections:
            if section.state == "answered":
                view.doing(section.method, ESCAPE, 1, 2)
            run = audit.runs.get(section.method)
            view.ended(section, run and run.finding)

    lines = printed(lambda target: follow(LineView(target, {})))
    assert controls(lines) == set()
    assert [line.split()[:2] for line in lines.splitlines()] == [
        ["judge", "concern"], ["witness", "internal"], ["adviser", "described"],
    ]  # fmt: skip

    target = screen(terminal=True, width=120)
    with Progress(TextColumn("{task.description}", markup=False), console=target) as progress:
        view = BarView(target, {}, progress)
        view.planned([section for section in audit.sections if section.state == "answered"])
        for section in audit.sections[::2]:
            view.doing(section.method, ESCAPE, 1, 2)
            view.ended(section, audit.runs[section.method].finding)
        notes = [task.fields["note"] for task in progress.tasks]
    assert notes == ["concern 0.0 s", "described 0.0 s", ""]
    assert "\x1b]0" not in target.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", ":smiley:", "{{7*7}}", "\\[x]", "<b>"])
def test_markup_is_shown_and_not_read(text: str):
    for block in every_block(text).values():
        out = printed(show_block, block)
        assert text in out
        assert out.count("\\") == out.count(text) * text.count("\\")


def test_columns_that_do_not_fit_are_named_and_no_word_is_split():
    names = ["example", "prompt", *(f"number_{place}" for place in range(12))]
    row = ["downstream-test-0-41", "describe the picture", *("0.0000123" for _ in range(12))]
    out = printed(show_rows, "", names, [row, row])
    assert out.count("downstream-test-0-41") == 2
    assert "picture" in out
    assert "0.0000123" in out
    assert "more columns in the report: number_" in out
    whole = printed(show_rows, "", names, [row, row], width=300)
    assert "number_11" in whole
    assert "more columns" not in whole


@pytest.mark.parametrize("width", [30, 60, 80])
def test_no_line_is_wider_than_the_screen(finished, width: int):
    assert widest(printed(show_finding, finished.finding, width=width)) <= width


@pytest.mark.parametrize("verdict", Verdict)
def test_the_verdict_comes_first(verdict: Verdict):
    class RoleFinding(TextFinding):
        @property
        def verdict(self) -> Verdict:
            return verdict

    assert printed(show_finding, RoleFinding("It is so.", ())) == f"{str(verdict).upper()}  It is so.\n"


def test_an_audit_says_its_verdicts_by_their_words():
    out = printed(show_audit, audit_with(judge="pass", witness="concern", adviser="described"))
    assert out.startswith("CONCERN  There is reason for concern.")
    rows = [line.split()[:2] for line in out.splitlines() if line.startswith(("judge", "witness", "adviser"))]
    assert rows == [["judge", "pass"], ["witness", "concern"], ["adviser", "described"]]


def test_long_tables_say_what_is_left_out():
    said = printed(show_rows, "", ("number",), [(number,) for number in range(MOST_ROWS + 3)])
    assert f"\n{MOST_ROWS - 1} " in said
    assert f"\n{MOST_ROWS} " not in said
    assert "3 more rows" in said


def test_an_unknown_kind_is_refused():
    with pytest.raises(TypeError, match="no terminal form"):
        show_block(console(), "text")


def test_nothing_but_text_goes_into_a_pipe(
    finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    show_finding(console(), finished.finding)
    said = capsys.readouterr().out
    assert controls(said) == set()
    assert finished.finding.headline.split()[0] in said


def test_every_finding_has_words(finished):
    assert isinstance(finished.finding, Finding)
    said = " ".join(printed(show_finding, finished.finding).split())
    assert str(finished.finding.on_images.own) in said
    assert "(null)" in said
