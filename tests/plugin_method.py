"""A method of another package: it counts letters and needs no model; tests make it slow, failing or hostile.

Its package also brings the kind of input and the method of `plugin_kind.py`.
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
from glasshouse.values.blocks import Block, Metric, Note, Table
from glasshouse.values.findings import Finding, Interval, Verdict
from glasshouse.values.rows import Record
from plugins import install

SHARD = 2
DELAY = "GLASSHOUSE_TEST_NAP"
"""Seconds that a shard takes. No option, because options decide which unfinished run is resumed."""
processed: list[str] = []
"""Prompts that were processed, in order: a resumed run processes none of them again."""
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
        return [
            Metric("mean length", self.mean),
            Table.of("Prompts", {"prompt": self.prompts, "length": self.lengths.tolist()}),
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
        process(example.prompt for example in shard)
        return Lengths(torch.tensor([len(example.prompt) * options.factor for example in shard]))

    found = over_shards(look, examples, Lengths, name="lengths", size=SHARD)
    drawn = float(torch.rand((), generator=torch.Generator().manual_seed(options.seed)))
    return CountFinding(
        found.values, Interval.mean(found.values, seed=options.seed), tuple(example.prompt for example in examples),
        options.verdict, drawn if options.seed else float("nan"),
    )  # fmt: skip


def process(prompts: Iterable[str]) -> None:
    """Take the time that `DELAY` sets, and note the prompts."""
    before_shard(len(processed) // SHARD)
    time.sleep(float(os.environ.get(DELAY, "0")))
    processed.extend(prompts)


def prompts(n: int) -> Examples:
    """Prompts of growing length."""
    return Examples((Example(prompt="a" * (number + 1)) for number in range(n)), source="plugin_method")


def installed(folder: Path) -> Path:
    """The package that brings both methods and the kind."""
    methods = {"count": "plugin_method:count", "total": "plugin_kind:total"}
    kinds = {"ledger": "plugin_kind:LEDGER"}
    return install(folder, "plugin_method", {"glasshouse.methods": methods, "glasshouse.kinds": kinds})
