"""What does a method answer? A `Finding`: a frozen value with headline, verdict, numbers with their doubt, and blocks.

A finding does not print, plot or write. It packs to disk and back (`values/codec.py`), and surfaces show its blocks.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from glasshouse.values.blocks import Block, Chart, Heatmap, Metric, first_table
from glasshouse.values.codec import ByContent
from glasshouse.values.errors import BadInput
from glasshouse.values.intervals import Interval
from glasshouse.values.surfaces import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["Finding", "Interval", "Verdict"]


class Verdict(StrEnum):
    """Earned, never assumed, from harmless to bad. `described` is the verdict of a method that describes and does not
    judge; `inconclusive` is the verdict whenever the interval straddles the threshold."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    DESCRIBED = "described"
    INCONCLUSIVE = "inconclusive"
    CONCERN = "concern"
    FAIL = "fail"


@dataclass(frozen=True, eq=False)
class Finding(ByContent, ABC):
    """The answer of one method. Subclasses are frozen dataclasses (`eq=False`: equality is by content)."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """One sentence a manager understands, with the number that carries it."""

    @property
    @abstractmethod
    def verdict(self) -> Verdict: ...

    @abstractmethod
    def blocks(self) -> list[Block]:
        """What to show, control beside effect."""

    @property
    def advice(self) -> str:
        """What to do next, in one sentence; empty where the finding does not say."""
        return ""

    def to_frame(self) -> "DataFrame":
        """The finding's first table as a pandas frame; an interval becomes three columns."""
        try:
            from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise BadInput("to_frame needs pandas: pip install pandas") from None
        return DataFrame(self.rows())

    def rows(self) -> list[dict[str, str | float | int | bool | None]]:
        """The finding's first table as flat records."""
        table = first_table(self.blocks())
        records: list[dict[str, str | float | int | bool | None]] = []
        for row in table.rows:
            record: dict[str, str | float | int | bool | None] = {}
            for name, cell in zip(table.columns, row, strict=True):
                if isinstance(cell, Interval):
                    record |= {name: cell.value, f"{name} low": cell.low, f"{name} high": cell.high}
                else:
                    record[name] = cell
            records.append(record)
        return records

    def plot(self) -> "Figure":
        """The finding's first picture as a matplotlib figure."""
        for block in self.blocks():
            if isinstance(block, Chart | Heatmap | Metric):
                return rendered("figure", block)
        raise BadInput(f"{type(self).__name__} has nothing to plot")

    def _repr_html_(self) -> str:
        return rendered("html", self)
