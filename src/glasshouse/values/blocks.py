"""What can a finding show? Seven kinds of block, and nothing else.

A method chooses what to show; `report` draws it on a terminal, in a notebook or on a page. Text in a block may come
from a hostile model: a block holds it unchanged, and every surface escapes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from jaxtyping import Float, UInt8
from torch import Tensor

from glasshouse.values.intervals import Interval

Cell = str | float | int | bool | None | Interval
SeriesRole = Literal["effect", "null"]
"""A null is what should not show the effect; surfaces draw it in grey beside the effect."""


@dataclass(frozen=True)
class Block:
    """One thing to show."""


@dataclass(frozen=True)
class Metric(Block):
    """One number with its interval, and its null: what the number is where there is no effect."""

    name: str
    value: Interval
    null: Interval | None = None


@dataclass(frozen=True)
class Table(Block):
    """Rows under named columns, which may be explained."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    meanings: Mapping[str, str] = field(default_factory=dict[str, str])
    """By column: what stands in it."""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {number} has {len(row)} cells for {len(self.columns)} columns"
                )

    @classmethod
    def of(cls, title: str, columns: Mapping[str, Sequence[Cell]], meanings: Mapping[str, str] | None = None) -> Self:
        """From columns."""
        return cls(title, tuple(columns), tuple(zip(*columns.values(), strict=True)), meanings or {})


@dataclass(frozen=True)
class Series:
    """One line of a chart, with the band of its intervals."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    role: SeriesRole = "effect"

    @classmethod
    def of(cls, name: str, points: Mapping[float, Interval], role: SeriesRole = "effect") -> Self:
        """From intervals over x."""
        values = list(points.values())
        y, low, high = ([getattr(v, end) for v in values] for end in ("value", "low", "high"))
        return cls(name, tuple(map(float, points)), tuple(y), tuple(low), tuple(high), role)


@dataclass(frozen=True)
class Chart(Block):
    """Lines over x, or intervals side by side when `labels` names the positions on x."""

    title: str
    series: tuple[Series, ...]
    x: str = ""
    y: str = ""
    labels: tuple[str, ...] = ()
    percent: bool = False
    """The values are fractions, which are written as percentages."""
    meaning: str = ""
    """What stands on x."""

    @classmethod
    def intervals(cls, title: str, values: Mapping[str, Interval], *, nulls: Sequence[str] = (), y: str = "") -> Self:
        """Named intervals side by side; those in `nulls` are drawn as nulls."""
        series = tuple(
            Series(name, (float(i),), (v.value,), (v.low,), (v.high,), "null" if name in nulls else "effect")
            for i, (name, v) in enumerate(values.items())
        )
        percent = bool(values) and all(value.percent for value in values.values())
        return cls(title, series, "", y, tuple(values), percent)


@dataclass(frozen=True)
class Heatmap(Block):
    """Numbers in a grid, with a text in each cell where one helps."""

    title: str
    values: Float[Tensor, "rows columns"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    x: str = ""
    y: str = ""
    texts: tuple[tuple[str, ...], ...] = ()
    percent: bool = False
    """The values are fractions, which are written as percentages."""

    def __post_init__(self) -> None:
        if tuple(self.values.shape) != (len(self.rows), len(self.columns)):
            raise ValueError(
                f"heatmap {self.title!r}: {tuple(self.values.shape)} values, {len(self.rows)}x{len(self.columns)} names"
            )


@dataclass(frozen=True)
class Picture:
    """An image with a caption, and a map over it where there is one (rows by columns, top left first)."""

    pixels: UInt8[Tensor, "height width 3"]
    caption: str
    overlay: Float[Tensor, "rows columns"] | None = None
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom, as fractions of width and height."""


@dataclass(frozen=True)
class Gallery(Block):
    """Pictures side by side."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Turn:
    """What one speaker says."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Transcript(Block):
    """A conversation. Text of a model is shown inert."""

    title: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Note(Block):
    """A sentence for the reader."""

    text: str
    tone: Literal["plain", "warning"] = "plain"
