"""How does a finding read on a terminal? Headline first, at most 80 columns, plain when the output is not a
terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from glasshouse.report.inert import inert
from glasshouse.report.words import alternative, cell
from glasshouse.values.blocks import Block, Chart, Gallery, Heatmap, Metric, Note, Table, Transcript
from glasshouse.values.findings import Finding

if TYPE_CHECKING:
    from glasshouse.report.html import Bound

STATUS = {"pass": 0, "described": 0, "concern": 1, "fail": 1, "inconclusive": 3}
"""Of a process that ends with this verdict."""
STYLES = {
    "pass": "bold green",
    "described": "bold",
    "concern": "bold yellow",
    "fail": "bold red",
    "inconclusive": "bold",
}
MOST_ROWS = 24


class _Console(Console):
    """What a reader who has left means for the exit status is the command line's to say."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console that never interprets what it is given as markup."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)


def one_line(text: object) -> str:
    """Inert, and unable to begin a line of its own, on which it could pass for a verdict of ours."""
    return inert(text).replace("\n", "⏎")


def show_finding(screen: Console, finding: Finding) -> None:
    """The verdict, then every block."""
    show_verdict(screen, finding.verdict, finding.headline)
    for block in finding.blocks():
        show_block(screen, block)
    if finding.advice:
        screen.print(f"What to do next: {one_line(finding.advice)}")


def show_verdict(screen: Console, verdict: str, headline: str) -> None:
    line = Text()
    line.append(str(verdict).upper(), style=STYLES[str(verdict)])
    line.append(f"  {one_line(headline)}")
    screen.print(line)


def show_audit(screen: Console, audit: "Bound") -> None:
    """The verdict, then what was found, how sure, what to do, and what was not examined."""
    judgement = audit.judgement
    show_verdict(screen, judgement.verdict, judgement.headline)
    rows = [(one.method, str(audit.runs[one.method].finding.verdict), one.question)
            for one in audit.sections if one.state == "answered"]  # fmt: skip
    show_rows(screen, "", ("asked", "answer", "question"), rows)
    told = (
        ("What was found", judgement.found()),
        ("How sure it is", judgement.sure()),
        ("What to do next", judgement.advice()),
        ("What was not examined", judgement.left_out()),
    )
    for title, lines in told:
        if lines:
            screen.print(f"\n{title}", style="bold")
        for line in lines:
            screen.print(Padding(Text(f"- {one_line(line)}"), (0, 0, 0, 1)))


def show_pairs(screen: Console, pairs: Sequence[Any]) -> None:
    """Two answers to each question, and where their numbers differ."""
    for pair in pairs:
        if len(pairs) > 1:
            screen.print(f"\n{pair.method}", style="bold")
            for label, made in (("first", pair.first), ("second", pair.second)):
                said = f"{made.finding.verdict}: {one_line(made.finding.headline)}" if made else "not answered"
                screen.print(f"{label}: {said}")
        if pair.differences:
            show_rows(screen, "", ("what", "first", "second"), [tuple(row.values()) for row in pair.differences])
        elif pair.first and pair.second:
            screen.print("no difference")


def show_block(screen: Console, block: Block) -> None:
    match block:
        case Metric():
            null = f"   (null: {block.null})" if block.null else ""
            screen.print(f"{one_line(block.name)}: {block.value}{null}")
        case Table():
            show_rows(screen, block.title, block.columns, block.rows)
        case Chart() | Heatmap():
            screen.print(one_line(alternative(block)), style="dim")
        case Gallery():
            screen.print(f"{one_line(block.title)}: {len(block.pictures)} pictures, see the report", style="dim")
        case Transcript():
            for turn in block.turns:
                screen.print(f"{one_line(turn.speaker)}: " + inert(turn.text).replace("\n", "\n    "))
        case Note():
            screen.print(("! " if block.tone == "warning" else "") + one_line(block.text))
        case _:
            raise TypeError(f"{type(block).__name__} has no terminal form")


def show_rows(screen: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = RichTable(
        title=Text(one_line(title)) if title else None,
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for name in columns:
        table.add_column(Text(one_line(name)), overflow="fold")
    for row in rows[:MOST_ROWS]:
        table.add_row(*(Text(one_line(cell(value))) for value in row))
    screen.print(table)
    if len(rows) > MOST_ROWS:
        screen.print(f"… {len(rows) - MOST_ROWS} more rows in the report")
