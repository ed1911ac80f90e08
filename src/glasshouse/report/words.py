"""How are numbers and methods told in words? Cells of a table, what a reader who cannot see a picture is told, and what
a method's page says."""

import re
from dataclasses import dataclass
from typing import Any

from glasshouse.report.inert import inert
from glasshouse.values.blocks import Block, Chart, Heatmap
from glasshouse.values.intervals import Interval


def cell(value: Any) -> str:
    """One cell of a table as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else inert(value)


def alternative(block: Block) -> str:
    """What a reader who cannot see the picture is told: its numbers."""
    match block:
        case Chart():
            lines = (f"{s.name}{' (null)' if s.role == 'null' else ''}: {_numbers(s.y)}" for s in block.series)
            return inert(f"{block.title}. {block.y} over {block.x or ', '.join(block.labels)}. " + "; ".join(lines))
        case Heatmap():
            low, high = float(block.values.min()), float(block.values.max())
            row, column = divmod(int(block.values.argmax()), block.values.shape[1])
            most = f"{high:.3g} at {block.rows[row]}, {block.columns[column]}"
            return inert(
                f"{block.title}. {len(block.rows)} rows by {len(block.columns)} columns, from {low:.3g} to {most}."
            )
        case _:
            return ""


def picture_name(block: Block) -> str:
    """What a picture is called where the table of its numbers follows: a row of bare numbers tells nobody anything."""
    if isinstance(block, Chart):
        return inert(f"{block.title}. The numbers are in the table below.")
    return alternative(block)


def names_a_row(value: Any) -> bool:
    """Whether a row's first cell says what the row is about: a word or a place, not a measurement."""
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
    shown = ", ".join(f"{value:.3g}" for value in values[:24])
    return shown + (" …" if len(values) > 24 else "")
