"""What does a method answer? A `Finding`: a frozen value with headline, verdict, intervals, rows and blocks.

A finding does not print, plot or write. It packs to disk and back (`values/codec.py`), and surfaces show its blocks.
Its rows and its default blocks follow from the types and docstrings of its fields (`values/declared.py`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from glasshouse.values.blocks import Block, Chart, Heatmap, Metric
from glasshouse.values.codec import ByContent
from glasshouse.values.declared import Keys, NoPicture, Null, Percent, Rows
from glasshouse.values.default_blocks import default_blocks
from glasshouse.values.errors import BadInput
from glasshouse.values.intervals import Interval
from glasshouse.values.rows import Record, records, rows_field
from glasshouse.values.surfaces import rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["Finding", "Interval", "Keys", "NoPicture", "Null", "Percent", "Rows", "Verdict"]


class Verdict(StrEnum):
    """From harmless to bad. `described` is the verdict of a method that describes and does not judge; `inconclusive` is
    the verdict of a method that judges and could not tell, for instance because an interval straddles the threshold."""

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
        """What was found, how sure, why it matters: one sentence of at most 25 words."""

    @property
    @abstractmethod
    def verdict(self) -> Verdict: ...

    @property
    def advice(self) -> str:
        """What to do next, in one sentence; empty where the finding gives no advice."""
        return ""

    @property
    def power(self) -> str:
        """What a pass would have caught, as measured on the very base; empty where that was not measured."""
        return ""

    def blocks(self) -> list[Block]:
        """What to show, control beside effect: by default what the types of the fields suggest."""
        return default_blocks(self)

    @property
    def unit(self) -> str:
        """What one row is about, for instance a layer, or an arm and a seed."""
        field = rows_field(type(self))
        return " and ".join(field.keys) if field else "finding"

    def rows(self) -> list[Record]:
        """The data per unit as flat records; an interval becomes three columns: asr, asr_low, asr_high."""
        return records(self)

    def to_frame(self) -> "DataFrame":
        """The rows as a pandas frame."""
        try:
            from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise BadInput("to_frame needs pandas: pip install pandas") from None
        return DataFrame(self.rows())

    def plot(self) -> "Figure":
        """The finding's first chart, heatmap or metric as a matplotlib figure."""
        for block in self.blocks():
            if isinstance(block, Chart | Heatmap | Metric):
                return rendered("figure", block)
        raise BadInput(f"{type(self).__name__} has nothing to plot")

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "__repr__" not in cls.__dict__:  # `dataclass` would write one of its own, with every number in it
            cls.__repr__ = Finding.__repr__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.verdict}: {self.headline})"

    def _repr_html_(self) -> str:
        return rendered("html", self)
