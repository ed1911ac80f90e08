"""How are numbers put into words? Cells of a table, and text alternatives of pictures."""

import math
from typing import Any

from glasshouse.values.blocks import Block, Chart, Heatmap
from glasshouse.values.intervals import Interval

MOST_NUMBERS = 24
"""Numbers of a series that its text alternative lists."""


def cell(value: Any) -> str:
    """One cell of a table as text."""
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """Two significant digits; more where two would round a share to one, or cost whole numbers their digits."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    if value.is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2
    while abs(value) < 1 and digits < 6 and abs(float(f"{value:.{digits}g}")) == 1:
        digits += 1
    return f"{value:.{digits}g}"


def moment(started: object) -> str:
    """A time in UTC as people write it."""
    return str(started).replace("T", " ").replace("+00:00", " UTC")


def alternative(block: Block) -> str:
    """What a reader who cannot see the picture is told: its numbers."""
    match block:
        case Chart():
            lines = (f"{s.name}{' (null)' if s.role == 'null' else ''}: {_numbers(s.y)}" for s in block.series)
            return f"{block.title}. {block.y} over {block.x or ', '.join(block.labels)}. " + "; ".join(lines)
        case Heatmap():
            low, high = float(block.values.min()), float(block.values.max())
            row, column = divmod(int(block.values.argmax()), block.values.shape[1])
            most = f"{number(high)} at {block.rows[row]}, {block.columns[column]}"
            size = f"{len(block.rows)} rows by {len(block.columns)} columns"
            return f"{block.title}. {size}, from {number(low)} to {most}."
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


def _numbers(values: tuple[float, ...]) -> str:
    shown = ", ".join(map(number, values[:MOST_NUMBERS]))
    return shown + (" …" if len(values) > MOST_NUMBERS else "")
