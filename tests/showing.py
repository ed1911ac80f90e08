"""Blocks of every kind, with a text wherever one may stand."""

from dataclasses import dataclass

import torch

from glasshouse.values.blocks import (
    Block,
    Chart,
    Gallery,
    Heatmap,
    Metric,
    Note,
    Picture,
    Series,
    Table,
    Transcript,
    Turn,
)
from glasshouse.values.findings import Finding, Interval, Verdict

SURE = Interval(0.5, 0.25, 0.75, 8, how="made up")
PIXELS = torch.arange(4 * 4 * 3, dtype=torch.uint8).reshape(4, 4, 3)


def words(text: str) -> dict[str, Block]:
    """The kinds that are no picture."""
    doubted = Interval(0.5, 0.25, 0.75, 8, how=text)
    return {
        "metric": Metric(text, doubted, null=doubted),
        "table": Table(text, (text, "number"), ((text, 1.5), (None, doubted), (text, float("nan")), (True, 10**30))),
        "gallery": Gallery(text, (Picture(PIXELS, text, torch.eye(2), (0.0, 0.25, 0.5, 1.0)), Picture(PIXELS, text))),
        "transcript": Transcript(text, (Turn(text, text), Turn("model", text))),
        "note": Note(text),
        "warning": Note(text, "warning"),
    }


def drawings(*texts: str) -> dict[str, Block]:
    """The kinds that are drawn, with all the texts on one drawing."""
    first, many = texts[0], range(len(texts))
    lines = tuple(
        Series(text, (0.0, 1.0, 2.0), (0.1 * i, 0.2 * i, 0.5), (0.0,) * 3, (9.0,) * 3, "null" if i % 2 else "effect")
        for i, text in enumerate(texts)
    )
    points = tuple(Series(text, (float(i),), (0.5,), (0.25,), (0.75,)) for i, text in enumerate(texts))
    grid = torch.arange(float(len(texts) ** 2)).reshape(len(texts), -1)
    return {
        "lines": Chart(first, lines, x=first, y=first),
        "points": Chart(first, points, x=first, y=first, labels=texts),
        "heatmap": Heatmap(first, grid, texts, texts, x=first, y=first, texts=tuple(texts for _ in many)),
    }


def every_kind(text: str) -> dict[str, Block]:
    return {**words(text), **drawings(text)}


@dataclass(frozen=True, eq=False)
class Said(Finding):
    """A finding that shows what it is given."""

    text: str
    kinds: tuple[str, ...]

    @property
    def headline(self) -> str:
        return self.text

    @property
    def verdict(self) -> Verdict:
        return Verdict.CONCERN

    def blocks(self) -> list[Block]:
        return [every_kind(self.text)[kind] for kind in self.kinds]
