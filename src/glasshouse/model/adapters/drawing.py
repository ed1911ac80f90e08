"""What does an adapter touch, and how much of its update lies where? Drawn from its own files: no base weight is read.

The size of a low-rank update is its Frobenius norm, scale included; shares are of the squared norm, so that they add up
to all of it. What replaces weights, and DoRA's magnitudes, are only sized beside the base's weights: `differences.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedModel

from glasshouse.model.adapters.merging import Update, fitted
from glasshouse.model.adapters.reading import Adapter
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.differences import WeightPart, part_in, paths_of_parts
from glasshouse.values.wording import counted

ORDER: tuple[WeightPart, ...] = ("vision", "projector", "language", "embeddings", "head", "elsewhere")
SHOWN = 3
"""Modules that a line names; JSON has all of them."""


@dataclass(frozen=True)
class PartUpdate:
    """What an adapter does to one part of the model."""

    part: WeightPart
    updates: tuple[Update, ...]
    share: float | None
    """Of the squared norm of all low-rank updates; None where there is none in this part."""


@dataclass(frozen=True)
class AdapterAnatomy:
    """What an adapter touches."""

    adapter: str
    """Its folder."""
    kind: str
    """LoRA or DoRA, with its way of scaling."""
    base: str
    """Name of the model it is merged into."""
    weights: str
    """SHA-256 of its settings and weights."""
    parts: tuple[PartUpdate, ...]

    def lines(self) -> Iterator[str]:
        """The drawing, a line each."""
        yield f"{self.kind} adapter {self.adapter}, weights {self.weights[:16]}…, on {self.base}"
        for touched in self.parts:
            low = [update for update in touched.updates if update.kind == "low rank"]
            if low:
                ranks, scales = _range([u.rank or 0 for u in low]), _range([u.scale or 0.0 for u in low])
                share = "no update" if touched.share is None else f"{touched.share:.0%} of the update's squared norm"
                largest = max(low, key=lambda update: update.norm or 0.0)
                yield (
                    f"  {touched.part:<10}  {counted(len(low), 'module')} ({_layers(low)}), rank {ranks}, "
                    f"scale {scales}, {share}, largest in {largest.name}"
                )
            for kind, one, several in (
                ("replaced", "weight replaced", "weights replaced"),
                ("rows", "table of tokens with replaced rows", "tables of tokens with replaced rows"),
            ):
                updates = [update for update in touched.updates if update.kind == kind]
                if updates:
                    yield f"  {touched.part:<10}  {counted(len(updates), one, several)}: {_names(updates)}"


def draw_adapter(model: PreTrainedModel, anatomy: Anatomy, adapter: Adapter, base: str) -> AdapterAnatomy:
    """What the adapter does to a model, which may lie on the meta device."""
    paths = paths_of_parts(model, anatomy)
    by_part: dict[WeightPart, list[Update]] = {}
    for update in fitted(model, adapter):
        by_part.setdefault(part_in(paths, update.name), []).append(update)
    squares = {part: sum((u.norm or 0.0) ** 2 for u in updates) for part, updates in by_part.items()}
    total = sum(squares.values())
    parts = tuple(
        PartUpdate(part, tuple(by_part[part]), squares[part] / total if squares[part] else None)
        for part in ORDER
        if part in by_part
    )
    return AdapterAnatomy(str(adapter.folder), adapter.kind, base, adapter.weights, parts)


def _range(numbers: list[int] | list[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _layers(updates: list[Update]) -> str:
    """The modules' own names, each once."""
    return ", ".join(sorted({update.name.rpartition(".")[2] for update in updates}))


def _names(updates: list[Update]) -> str:
    more = len(updates) - SHOWN
    names = ", ".join(update.name for update in updates[:SHOWN])
    return f"{names}, and {more} more" if more > 0 else names
