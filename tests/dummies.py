"""A method of another package: quick, without a model, and able to be slow, to fail and to hold hostile text.

Its package also brings `ledgers.py`, a kind of input that is neither model nor examples, and a method that takes it.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.engine.method import method
from glasshouse.engine.units import over_shards
from glasshouse.values.blocks import Block, Chart, Metric, Note, Series, Table
from glasshouse.values.findings import Finding, Interval, Verdict
from glasshouse.values.rows import Record

SHARD = 2
NAP = "GLASSHOUSE_TEST_NAP"
"""Seconds that a shard takes. No option, because options decide which unfinished run is resumed."""
worked: list[str] = []
"""What was looked at, in order: a resumed run must not look again."""
before_shard: Callable[[int], None] = lambda number: None  # noqa: E731 - a switch that tests turn
"""Called with the number of shards done so far."""


@dataclass(frozen=True)
class Options:
    verdict: Literal["pass", "described", "concern", "fail", "inconclusive"] = "pass"
    """What to answer."""
    seed: int = 0
    """Seed of the one random number."""
    factor: float = 1.0
    """Lengths are multiplied by it."""


@dataclass
class Lengths:
    values: Float[Tensor, " prompts"]

    def __add__(self, other: "Lengths") -> "Lengths":
        return Lengths(torch.cat([self.values, other.values]))


@dataclass(frozen=True, eq=False)
class CountFinding(Finding):
    lengths: Float[Tensor, " prompts"]
    mean: Interval
    prompts: tuple[str, ...]
    answer: str
    drawn: float
    """Not a number from time to time, so that what is not finite goes to disk too."""

    @property
    def headline(self) -> str:
        return f"{len(self.lengths)} prompts are {self.mean} long."

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.answer)

    def rows(self) -> list[Record]:
        mean = {"mean": self.mean.value, "mean_low": self.mean.low, "mean_high": self.mean.high}
        pairs = zip(self.prompts, self.lengths.tolist(), strict=True)
        return [{"prompt": prompt, "length": length, **mean, "drawn": self.drawn} for prompt, length in pairs]

    def blocks(self) -> list[Block]:
        series = Series("length", tuple(map(float, range(len(self.lengths)))), tuple(self.lengths.tolist()))
        return [
            Metric("mean length", self.mean),
            Table.of("Prompts", {"prompt": self.prompts, "length": self.lengths.tolist()}),
            Chart("Lengths", (series,), x="prompt", y="letters"),
            Note(f"The number drawn is {self.drawn}."),
        ]


@method(needs="weights")
def count(examples: Examples, options: Options = Options()) -> CountFinding:
    """How long are the prompts?

    Paper: none.

    1. Count the letters of every prompt, shard by shard.

    How to read it: more is longer. When it misleads: a long prompt need not say much.
    """

    def look(shard: Examples) -> Lengths:
        work(example.prompt for example in shard)
        return Lengths(torch.tensor([len(example.prompt) * options.factor for example in shard]))

    found = over_shards(look, examples, Lengths, name="lengths", size=SHARD)
    drawn = float(torch.rand((), generator=torch.Generator().manual_seed(options.seed)))
    return CountFinding(
        found.values, Interval.mean(found.values, seed=options.seed), tuple(example.prompt for example in examples),
        options.verdict, drawn if options.seed else float("nan"),
    )  # fmt: skip


def work(what: Iterable[str]) -> None:
    """Slow, if asked to be, and remembered."""
    before_shard(len(worked) // SHARD)
    time.sleep(float(os.environ.get(NAP, "0")))
    worked.extend(what)


def prompts(n: int) -> Examples:
    """Prompts of growing length."""
    return Examples((Example(prompt="a" * (number + 1)) for number in range(n)), source="dummies")


def installed(folder: Path) -> Path:
    """What pip would write for a package that brings these; to be put on the path."""
    about = folder / "dummies-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dummies\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[glasshouse.methods]\ncount = dummies:count\ntotal = ledgers:total\n"
        "[glasshouse.kinds]\nledger = ledgers:LEDGER\n"
    )
    return folder
