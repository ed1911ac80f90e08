"""A kind of input that is neither model nor examples, and a method without a model that takes it.

The kind is known only while the package of `plugin_method.py` is installed: tests import this file after that.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from glasshouse.data.examples import Example, Examples
from glasshouse.engine.inputs import Kind, Meaning
from glasshouse.engine.method import method
from glasshouse.engine.opening import Opening
from glasshouse.engine.units import over_shards
from glasshouse.values.blocks import Block, Table
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Verdict
from plugin_method import Lengths, Options, process


@dataclass(frozen=True)
class Ledger:
    """Numbers under one name."""

    name: str
    entries: tuple[float, ...]


class LedgerKind(Kind[Ledger]):
    """A text file with one number on each line."""

    type, flag, metavar = Ledger, "ledger", "FILE"
    form, example = "a text file with a number on each line", "ledger.txt"
    meaning = Meaning("the ledger to add up")

    def read(self, text: str, opening: Opening) -> Ledger:
        try:
            return Ledger(text, tuple(map(float, Path(text).read_text("utf-8").split())))
        except (OSError, ValueError) as problem:
            raise BadInput(f"{text}: not a ledger ({problem}); write a number on each line") from None

    def identity(self, value: Ledger) -> Mapping[str, Any]:
        return {"digest": hashlib.sha256(repr(value.entries).encode()).hexdigest(), "entries": len(value.entries)}

    def label(self, value: Ledger) -> str:
        return f"{value.name} ({len(value.entries)} entries)"

    def limited(self, value: Ledger, limit: int) -> Ledger:
        return Ledger(value.name, value.entries[:limit])

    def sample(self, number: int, least: int) -> Ledger:
        return Ledger(f"sample {number}", tuple(map(float, range(number, number + max(least, 4)))))


LEDGER = LedgerKind()


@dataclass(frozen=True, eq=False)
class TotalFinding(Finding):
    total: float
    shares: tuple[float, ...]
    answer: str

    @property
    def headline(self) -> str:
        return f"The ledgers sum to {self.total:g}."

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.answer)

    def rows(self) -> list[dict[str, Any]]:
        return [{"ledger": number, "share": share} for number, share in enumerate(self.shares)]

    def blocks(self) -> list[Block]:
        return [Table.of("Ledgers", {"ledger": list(range(len(self.shares))), "share": self.shares})]


@method(needs="weights", role="judge", depth="quick")
def total(
    ledger: Ledger,
    others: Annotated[Sequence[Ledger] | None, "ledgers to add to it"] = None,
    options: Options = Options(),
) -> TotalFinding:
    """What do the entries of a ledger sum to?

    Paper: none.

    1. Add up every ledger, one after the other.

    How to read it: a sum. When it misleads: rounding.
    """

    def add(shard: Examples) -> Lengths:
        process(example.prompt for example in shard)
        return Lengths(torch.tensor([sum(map(float, example.prompt.split())) for example in shard]))

    texts = (" ".join(map(str, each.entries)) for each in (ledger, *(others or ())))
    sums = over_shards(add, Examples(Example(prompt=text) for text in texts), Lengths, name="sums", size=1)
    return TotalFinding(float(sums.values.sum()), tuple(sums.values.tolist()), options.verdict)
