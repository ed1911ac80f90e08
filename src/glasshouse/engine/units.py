"""How is long work cut into units that survive a kill?

    tallies = mapped(tally, seeds, Tally, handles={"subject": subject}, name="seeds")     # one result per seed
    tally = over_shards(tally, examples, Tally, handles={"subject": subject})             # added up over batches

`tally(unit, subject=...)` is called for every unit. A unit is an example, a seed, an arm, a layer, a checkpoint: what
`values/codec.py` packs, Examples, Pairs, a Subject, or a tuple of these. Inside a run each result is on disk before the
next unit begins, and the same run after `kill -9` reads it back. Its file is named by name, index and content of the
unit, so a result for other data is never read.

The work depends on nothing but its unit and its handles, and draws random numbers from generators that it seeds.
"""

import functools
import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from glasshouse.data.examples import Example, Examples
from glasshouse.data.pairs import Pairs
from glasshouse.engine.files import read_packed, write_packed
from glasshouse.model.subject import Subject
from glasshouse.values.codec import digest
from glasshouse.values.errors import BadInput

S = TypeVar("S")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and of how many."""


@dataclass
class Workspace:
    """Where the results of one unfinished run lie."""

    folder: Path
    progress: Progress | None = None
    resumed: int = field(default=0, init=False)
    """Results read back instead of computed."""


_workspace: ContextVar[Workspace | None] = ContextVar("workspace", default=None)


@contextmanager
def working_in(workspace: Workspace) -> Iterator[Workspace]:
    """Inside, `mapped` keeps its results there."""
    token = _workspace.set(workspace)
    try:
        yield workspace
    finally:
        _workspace.reset(token)


def mapped(
    work: Callable[..., S],
    units: Iterable[Any],
    result: type[S],
    *,
    handles: Mapping[str, Any] | None = None,
    name: str = "unit",
) -> list[S]:
    """`work(unit, **handles)` for every unit: the results, each a `result`, in the order of the units."""
    units, workspace = list(units), _workspace.get()
    results: dict[int, S] = {}
    files: list[Path] = []
    if workspace is not None:
        files = [
            workspace.folder / f"{name}-{i:05d}-{content_of(unit)[:16]}.safetensors" for i, unit in enumerate(units)
        ]
        stored = ((i, read_packed(file, result)) for i, file in enumerate(files))
        results = {i: value for i, value in stored if value is not None}
        workspace.resumed += len(results)
        if results and workspace.progress is not None:
            workspace.progress(name, len(results), len(units))
    pending = [(i, unit) for i, unit in enumerate(units) if i not in results]
    for i, value in _here(work, pending, handles or {}):
        results[i] = value
        if workspace is not None:
            write_packed(files[i], value)
            if workspace.progress is not None:
                workspace.progress(name, len(results), len(units))
    return [results[i] for i in range(len(units))]


def merged(results: Sequence[S]) -> S:
    """All results added up with `+`, in order."""
    return functools.reduce(operator.add, results)  # pyright: ignore[reportArgumentType] - S is what has `+`


def over_shards(
    work: Callable[..., S],
    examples: Examples,
    result: type[S],
    *,
    handles: Mapping[str, Any] | None = None,
    name: str = "shard",
    size: int = 16,
) -> S:
    """`work` on `size` examples at a time, added up in order."""
    if not len(examples):
        raise BadInput("there are no examples to work on")
    return merged(mapped(work, examples.batches(size), result, handles=handles, name=name))


def _here(
    work: Callable[..., S], units: Sequence[tuple[int, Any]], handles: Mapping[str, Any]
) -> Iterator[tuple[int, S]]:
    """Units are computed in this process, one after the other."""
    for i, unit in units:
        # What the work maps itself is a plain loop: its files would have the same names for different units.
        token = _workspace.set(None)
        try:
            value = work(unit, **handles)
        finally:
            _workspace.reset(token)
        yield i, value


def content_of(unit: Any) -> str:
    """Names a unit by its content."""
    match unit:
        case Examples() | Pairs():
            return unit.digest
        case Example():
            return unit.digest()
        case Subject():
            if unit.content is None:
                raise BadInput(f"{unit.name}: some weights are offloaded and cannot be hashed; open it on one device")
            return digest(unit.content)
        case tuple():
            parts = (content_of(part) for part in cast(tuple[Any, ...], unit))
            return hashlib.sha256(" ".join(parts).encode()).hexdigest()
        case _:
            return digest(unit)
