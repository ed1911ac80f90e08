"""How does a finding read on a terminal? Headline first, at most 80 columns, plain when the output is not a
terminal."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from glasshouse.report.console import InertConsole
from glasshouse.report.inert import cut
from glasshouse.report.words import NOT_MEASURED, alternative, cell
from glasshouse.values.blocks import Block, Chart, Gallery, Heatmap, Metric, Note, Table, Transcript
from glasshouse.values.findings import Finding
from glasshouse.values.wording import counted

if TYPE_CHECKING:
    from glasshouse.report.html import AuditLike


class EstimateLike(Protocol):
    """What the work is estimated to take (engine/preflight.py)."""

    def rows(self) -> Iterator[tuple[str, str, str]]: ...
    def note(self) -> str: ...


STATUS = {"pass": 0, "described": 0, "concern": 1, "fail": 1, "inconclusive": 3}
"""Exit status of a process by its verdict."""
STYLES = {
    "pass": "bold green",
    "described": "bold",
    "concern": "bold yellow",
    "fail": "bold red",
    "inconclusive": "bold",
}
MOST_ROWS, GAP = 24, 2
"""Rows of a table that are shown; spaces between its columns."""
LONGEST_WORD = 36
"""Characters, those of a run's name among them; longer words, such as paths, may be split."""


def show_finding(screen: InertConsole, finding: Finding) -> None:
    """The verdict, then every block."""
    show_verdict(screen, finding.verdict, finding.headline)
    for block in finding.blocks():
        show_block(screen, block)
    if finding.advice:
        screen.print(_hanging("What to do next:", finding.advice))


def show_verdict(screen: InertConsole, verdict: str, headline: str) -> None:
    screen.print(_hanging(Text(str(verdict).upper(), style=STYLES[str(verdict)]), headline, gap=2))


def show_audit(screen: InertConsole, audit: "AuditLike") -> None:
    """The verdict, then what was found, how certain it is, what to do, and what was not examined."""
    judgement = audit.judgement
    show_verdict(screen, judgement.verdict, judgement.headline)
    answered = [section for section in audit.sections if section.method in audit.runs]
    rows = [(section.method, audit.runs[section.method].finding.verdict, section.question) for section in answered]
    show_rows(screen, "", ("check", "verdict", "question"), rows)
    parts = (
        ("What was found", [f"{method}: {headline}" for method, headline in judgement.headlines()]),
        ("How certain it is", judgement.evidence()),
        ("What a pass would have caught", judgement.power() or [NOT_MEASURED]),
        ("What to do next", judgement.advice()),
        ("What was not examined", judgement.not_examined()),
    )
    for title, lines in parts:
        if lines:
            screen.print()
            screen.print(title, style="bold")
        for line in lines:
            screen.print(_hanging(" -", line))


def show_pairs(screen: InertConsole, pairs: Sequence[Any]) -> None:
    """Two findings of each method, and where their numbers differ."""
    for pair in pairs:
        if len(pairs) > 1:
            screen.print()
            screen.print(pair.method, style="bold")
            for label, run in (("first:", pair.first), ("second:", pair.second)):
                text = f"{run.finding.verdict}: {run.finding.headline}" if run else "not answered"
                screen.print(_hanging(label, text))
        if pair.differences:
            show_rows(screen, "", ("what", "first", "second"), [tuple(row.values()) for row in pair.differences])
        elif pair.first and pair.second:
            screen.print("no difference")


def show_block(screen: InertConsole, block: Block) -> None:
    match block:
        case Metric():
            null = f"   (null: {block.null})" if block.null else ""
            screen.print(f"{block.name}: {block.value}{null}")
        case Table():
            show_rows(screen, block.title, block.columns, block.rows)
        case Chart() | Heatmap():
            screen.print(alternative(block), style="dim")
        case Gallery():
            screen.print(f"{block.title}: {len(block.pictures)} images, see the report", style="dim")
        case Transcript():
            for turn in block.turns:
                first, *others = cut(turn.text).split("\n")
                screen.print(f"{turn.speaker}: {first}")
                for line in others:
                    screen.print(Padding(line, (0, 0, 0, 4)))
        case Note():
            screen.print(_hanging("!", block.text) if block.tone == "warning" else block.text)
        case _:
            raise TypeError(f"{type(block).__name__} has no terminal form")


def show_rows(screen: InertConsole, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[cell(value) for value in row] for row in rows[:MOST_ROWS]]
    widths = _widths([list(column) for column in zip(columns, *cells, strict=True)], screen.width)
    count = len(widths)
    table = RichTable(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, width in zip(columns, widths, strict=False):
        table.add_column(name, overflow="fold", width=width)
    for row in cells:
        table.add_row(*row[:count])
    screen.print(table)
    if count < len(columns):
        more = counted(len(columns) - count, "more column")
        screen.print(f"… {more} in the report: {', '.join(columns[count:])}")
    if len(rows) > MOST_ROWS:
        screen.print(f"… {counted(len(rows) - MOST_ROWS, 'more row')} in the report")


def show_estimate(screen: InertConsole, estimate: EstimateLike) -> None:
    """What the work is estimated to take: a line for each part, then the time."""
    show_preflight(screen, ("", "parameters", "memory"), [*estimate.rows()])
    screen.unbroken(estimate.note())


def show_preflight(screen: InertConsole, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Names on the left, numbers in line on the right."""
    cells = [columns, *rows]
    first, *others = (max(map(len, column)) for column in zip(*(row[:3] for row in cells), strict=True))
    for name, *numbers in cells:
        aligned = "".join(f"  {number:>{width}}" for number, width in zip_longest(numbers, others, fillvalue=0))
        screen.unbroken(f"  {name:<{first}}{aligned}".rstrip())


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of the columns, from the left, that stand side by side without a split word, two columns at least. What
    room is left goes to the column that needs most lines."""
    words = [max(len(word) for text in column for word in text.split() or [""]) for column in columns]
    texts = [max(map(len, column)) for column in columns]
    widths = [max(1, min(LONGEST_WORD, word)) for word in words]
    count = sum(total - GAP <= room for total in accumulate(width + GAP for width in widths))
    if count < 2:
        return [max(1, room // 2 - GAP)] * min(2, len(columns))
    widths = widths[:count]
    for _ in range(room - sum(widths) - GAP * (count - 1)):
        neediest = max(range(count), key=lambda i: texts[i] / widths[i])
        if texts[neediest] <= widths[neediest]:
            break
        widths[neediest] += 1
    return widths


def _hanging(label: str | Text, text: str, gap: int = 1) -> RichTable:
    """A label, and a text beside it whose further lines are indented: a stranger's text never begins a line."""
    grid = RichTable.grid(padding=(0, gap, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(label, text)
    return grid
