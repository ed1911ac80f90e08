"""On a terminal nothing a stranger says is obeyed, and eighty columns are enough."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from glasshouse.report.terminal import MOST_ROWS, console, show_block, show_finding, show_rows
from glasshouse.values.findings import Finding, Verdict
from hostile import TEXTS, controls
from showing import Said, every_kind

OURS = re.compile(r"\x1b\[[0-9;]*m")
"""Colour, the one thing we say to a terminal."""


def printed(show, *what, terminal: bool = False, width: int = 80) -> str:
    file = io.StringIO()
    plain = {"markup": False, "emoji": False, "highlight": False}
    colours = "truecolor" if terminal else None
    screen = Console(file=file, width=width, force_terminal=terminal, color_system=colours, **plain)
    show(screen, *what)
    return file.getvalue()


def widest(text: str) -> int:
    return max((cell_len(line) for line in text.split("\n")), default=0)


@pytest.mark.parametrize("terminal", [False, True], ids=["a file", "a terminal"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_is_obeyed(text: str, terminal: bool):
    said = printed(show_finding, Said(text, tuple(every_kind("word"))), terminal=terminal)
    if terminal:
        assert "\x1b" in said
        said = OURS.sub("", said)
    assert controls(said) == set()
    assert widest(said) <= 80
    assert len(said) < 200_000


@pytest.mark.parametrize("kind", every_kind("word"))
@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", ":smiley:", "{{7*7}}", "\\[x]", "<b>"])
def test_markup_is_shown_and_not_read(kind: str, text: str):
    said = printed(show_block, every_kind(text)[kind])
    assert text in said
    assert said.count("\\") == said.count(text) * text.count("\\")


@pytest.mark.parametrize("width", [30, 60, 80])
def test_no_line_is_wider_than_the_screen(finished, width: int):
    assert widest(printed(show_finding, finished.finding, width=width)) <= width


@pytest.mark.parametrize("verdict", Verdict)
def test_the_verdict_comes_first(verdict: Verdict):
    class Judged(Said):
        @property
        def verdict(self) -> Verdict:
            return verdict

    assert printed(show_finding, Judged("It is so.", ())) == f"{str(verdict).upper()}  It is so.\n"


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
