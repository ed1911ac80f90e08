"""How are numbers and methods put into words? Cells of a table, text alternatives of pictures, and what a method's page
says."""

import math
import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Told:
    """The page of a method, by its parts."""

    papers: str
    steps: tuple[str, ...]
    reading: str
    misleading: str
    rest: str
    """What belongs to none of these."""

    @classmethod
    def of(cls, page: str) -> "Told":
        """From the docstring of its file."""
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n(?:\s*\n|(?=\d+\. ))", page.strip())][1:]
        steps = tuple(re.sub(r"^\d+\. ", "", part) for part in paragraphs if re.match(r"\d+\. ", part))
        papers = [part for part in paragraphs if re.match(r"Papers?: ", part)]
        read = [part for part in paragraphs if part.startswith("How to read it: ")]
        reading, _, misleading = " ".join(read).removeprefix("How to read it: ").partition("When it misleads: ")
        known = [*papers, *read]
        rest = [part for part in paragraphs if part not in known and not re.match(r"\d+\. ", part)]
        plain = " ".join(papers).partition(": ")[2]
        return cls(plain, steps, _sentence(reading), _sentence(misleading), " ".join(rest))


def _sentence(text: str) -> str:
    stripped = text.strip()
    return stripped[:1].upper() + stripped[1:]


def _numbers(values: tuple[float, ...]) -> str:
    shown = ", ".join(map(number, values[:MOST_NUMBERS]))
    return shown + (" …" if len(values) > MOST_NUMBERS else "")
