"""How does a finding read on a terminal? Headline first, at most 80 columns, plain when the output is not a
terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from glasshouse.report.inert import inert
from glasshouse.report.words import alternative, cell
from glasshouse.values.blocks import Block, Chart, Gallery, Heatmap, Metric, Note, Table, Transcript
from glasshouse.values.findings import Finding

STYLES = {"pass": "bold green", "concern": "bold yellow", "fail": "bold red", "inconclusive": "bold"}
MOST_ROWS = 24


def console(*, stderr: bool = False) -> Console:
    """A console that never interprets what it is given as markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)


def one_line(text: object) -> str:
    """Inert, and unable to begin a line of its own, on which it could pass for a verdict of ours."""
    return inert(text).replace("\n", "⏎")


def show_finding(screen: Console, finding: Finding) -> None:
    """The verdict, then every block."""
    line = Text()
    line.append(str(finding.verdict).upper(), style=STYLES[str(finding.verdict)])
    line.append(f"  {one_line(finding.headline)}")
    screen.print(line)
    for block in finding.blocks():
        show_block(screen, block)


def show_block(screen: Console, block: Block) -> None:
    match block:
        case Metric():
            null = f"   (null: {block.null})" if block.null else ""
            screen.print(f"{one_line(block.name)}: {block.value}{null}")
        case Table():
            show_rows(screen, block.title, block.columns, block.rows)
        case Chart() | Heatmap():
            screen.print(alternative(block), style="dim")
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
        title=Text(inert(title)) if title else None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    for name in columns:
        table.add_column(Text(inert(name)), overflow="fold")
    for row in rows[:MOST_ROWS]:
        table.add_row(*(Text(cell(value)) for value in row))
    screen.print(table)
    if len(rows) > MOST_ROWS:
        screen.print(f"… {len(rows) - MOST_ROWS} more rows in the report")
