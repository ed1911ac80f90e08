"""Blocks of every kind, facts and audits, with a text wherever a stranger may put one."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from glasshouse.engine.judgement import Judgement, Section
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

INTERVAL = Interval(0.5, 0.25, 0.75, 8, how="made up")
PIXELS = torch.arange(4 * 4 * 3, dtype=torch.uint8).reshape(4, 4, 3)


def plain_blocks(text: str) -> dict[str, Block]:
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


def drawn_blocks(*texts: str) -> dict[str, Block]:
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


def every_block(text: str) -> dict[str, Block]:
    return {**plain_blocks(text), **drawn_blocks(text)}


@dataclass(frozen=True, eq=False)
class TextFinding(Finding):
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
        return [every_block(self.text)[kind] for kind in self.kinds]


DIGEST = "0123456789abcdef" * 4


def facts(text: str = "half", *, name: str = "lens") -> dict[str, Any]:
    """What run.json holds beside a finding, with this text wherever a stranger may put one."""
    each = {"kind": "Subject", "meaning": text, "label": text, "text": text, "identity": {"name": text}}
    return {
        "schema": 2,
        "method": {"name": name, "question": text, "paper": text, "source": DIGEST},
        "inputs": {"model": each, "data": {**each, "kind": "Examples"}, text or "empty": {**each, "kind": text}},
        "options": {"harmless": 1, "text": text, text: text},
        "versions": {"glasshouse": "1", "python": text},
        "code": DIGEST,
        "device": text,
        "started": "2026-11-21T09:30:05+00:00",
        "seconds": 1.5,
        "command": text,
        "key": "k",
    }


def audit_with(text: str = "half", trace: str = "", **verdicts: str) -> Any:
    """`audit_with(judge="pass", adviser="described")`: an audit of which nothing is on disk.

    A method whose verdict is `broken`, `missing` or `refused` has no finding."""
    states = {"broken": "internal error", "missing": "not run", "refused": "refused"}
    sections = tuple(
        Section(name, f"What does the {name} find?", name.rstrip("0123456789"), states.get(verdict, "answered"),
                text if verdict in states else "", trace=trace if verdict == "broken" else "")
        for name, verdict in verdicts.items()
    )  # fmt: skip
    findings = {name: RoleFinding(text, name, verdict) for name, verdict in verdicts.items() if verdict not in states}
    runs = {name: SimpleNamespace(finding=finding, facts=facts(text)) for name, finding in findings.items()}
    return audit_of_runs(sections, runs, facts(text))


def audit_of_runs(sections: tuple[Section, ...], runs: dict[str, Any], about: dict[str, Any]) -> Any:
    """An audit of these runs."""
    judgement = Judgement(sections, {name: run.finding for name, run in runs.items()})
    return SimpleNamespace(sections=sections, runs=runs, facts={**about, "depth": "quick"}, judgement=judgement)


@dataclass(frozen=True, eq=False)
class RoleFinding(Finding):
    """The finding of a method that has a role in an audit."""

    text: str
    name: str
    answer: str
    drawn: bool = True
    """Whether blocks of every kind are shown, or the first alone."""

    @property
    def headline(self) -> str:
        return f"the {self.name} finds {self.text}."

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.answer)

    @property
    def advice(self) -> str:
        return f"Heed the {self.name}: {self.text}." if self.answer == "concern" else ""

    def blocks(self) -> list[Block]:
        half, none = Interval.rate(8, 16), Interval.rate(0, 16)
        metric = Metric(f"share of {self.text}", half, none)
        if not self.drawn:
            return [metric]
        return [
            metric,
            Chart.intervals("first", {self.text: half, "null": none}, nulls=("null",)),
            Chart.intervals("second", {"other": half}),
            Table.of(self.text, {self.text: [self.text], "half": [half]}),
            *plain_blocks(self.text).values(),
        ]
