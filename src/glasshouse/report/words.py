"""How are numbers put into words? Cells of a table, and text alternatives of pictures."""

from collections.abc import Callable
from typing import Any

from glasshouse.values.blocks import Block, Chart, Heatmap
from glasshouse.values.digits import percentage, plain
from glasshouse.values.intervals import Interval

NOT_MEASURED = "not measured: no known faults were planted in this base to count how many these checks find"
"""Of the power of a pass."""
MOST_NUMBERS = 24
"""Numbers of a series that its text alternative lists."""


def cell(value: Any) -> str:
    """One cell of a table as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain(value) if isinstance(value, float) else str(value)


def moment(started: object) -> str:
    """A time in UTC as people write it."""
    return str(started).replace("T", " ").replace("+00:00", " UTC")


def alternative(block: Block) -> str:
    """What a reader who cannot see the picture is told: its numbers."""
    match block:
        case Chart():
            write = percentage if block.percent else plain
            lines = (f"{s.name}{' (null)' if s.role == 'null' else ''}: {_numbers(s.y, write)}" for s in block.series)
            return f"{block.title}. {block.y} over {block.x or ', '.join(block.labels)}. " + "; ".join(lines)
        case Heatmap():
            low, high = float(block.values.min()), float(block.values.max())
            row, column = divmod(int(block.values.argmax()), block.values.shape[1])
            write = percentage if block.percent else plain
            most = f"{write(high)} at {block.rows[row]}, {block.columns[column]}"
            size = f"{len(block.rows)} rows by {len(block.columns)} columns"
            return f"{block.title}. {size}, from {write(low)} to {most}."
        case _:
            return ""


def picture_name(block: Block) -> str:
    """What a picture is called where the table of its numbers follows: a list of bare numbers helps nobody."""
    if isinstance(block, Chart):
        return f"{block.title}. The numbers are in the table below."
    return alternative(block)


def names_a_row(value: Any) -> bool:
    """Whether a row's first cell names the row: a word or a position, not a measurement."""
    return value not in (None, "") and not isinstance(value, bool | Interval)


def is_number(value: Any) -> bool:
    """Whether a cell holds a number, which no line break may split."""
    return isinstance(value, int | float | Interval) and not isinstance(value, bool)


def _numbers(values: tuple[float, ...], write: Callable[[float], str]) -> str:
    shown = ", ".join(map(write, values[:MOST_NUMBERS]))
    return shown + (" …" if len(values) > MOST_NUMBERS else "")
