"""How is long work cut into units that survive a kill and can run on other machines?

    tallies = mapped(tally, seeds, Tally, handles={"subject": subject}, name="seeds")     # one result per seed
    tally = over_shards(tally, examples, Tally, handles={"subject": subject})             # added up over batches

`tally(unit, subject=...)` is called for every unit. A unit is an example, a seed, an arm, a layer, a checkpoint: what
`values/codec.py` packs, Examples, Pairs, a Subject, or a tuple of these. Inside a run each result is on disk before the
next unit begins, and the same run after `kill -9` reads it back. Its file is named by the name and number of the call
and by the index and content of the unit, so a result of another call or for other data is never read.

Inside `executing("ray")` the units run on Ray workers (`engine/cluster.py`); results come back here and are written
here, so no file system has to be shared. The work must depend on nothing but its unit and its handles: a Subject
among them is reopened on the worker by identity (`engine/handles.py`), and random numbers come from a generator that
the work seeds itself. A result is the same to the last bit wherever it is computed with as many threads: set
OMP_NUM_THREADS, which holds for this process and for every worker.
"""

import functools
import hashlib
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from glasshouse.data.examples import Example, Examples
from glasshouse.data.pairs import Pairs
from glasshouse.engine.files import read_packed, write_packed
from glasshouse.model.subject import Subject
from glasshouse.values.codec import digest
from glasshouse.values.errors import BadInput

S = TypeVar("S")
U = TypeVar("U")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many units are done, and of how many."""


class Executor(Protocol):
    """Where units are computed: results in the order in which they finish, each with the number of its unit."""

    def results(
        self, work: Callable[..., S], units: Sequence[tuple[int, Any]], result: type[S], handles: Mapping[str, Any]
    ) -> Iterator[tuple[int, S]]: ...


@dataclass
class Workspace:
    """Where the results of one unfinished run lie."""

    folder: Path
    progress: Progress | None = None
    resumed: int = field(default=0, init=False)
    """Results read back instead of computed."""
    calls: Counter[str] = field(default_factory=Counter[str], init=False)
    """Calls of `mapped` so far, by name. A method repeats its calls in the same order when it is run again."""


_workspace: ContextVar[Workspace | None] = ContextVar("workspace", default=None)
_executor: ContextVar[Executor | None] = ContextVar("executor", default=None)


@contextmanager
def working_in(workspace: Workspace) -> Iterator[Workspace]:
    """Inside, `mapped` keeps its results there."""
    token = _workspace.set(workspace)
    try:
        yield workspace
    finally:
        _workspace.reset(token)


def rewind() -> None:
    """The method that runs now begins again: its calls are numbered from the first, so finished units are read back."""
    workspace = _workspace.get()
    if workspace is not None:
        workspace.calls.clear()


@contextmanager
def executing(on: str | None, *, workers: int | None = None) -> Iterator[None]:
    """Inside, `mapped` computes its units there: "ray" starts workers on this machine (one per core unless `workers`
    says how many), "ray:HOST:PORT" joins a running cluster. None changes nothing."""
    if not on:
        yield
        return
    from glasshouse.engine.cluster import ray_workers  # only here: Ray is optional and takes a second to import

    with ray_workers(on, workers) as executor:
        token = _executor.set(executor)
        try:
            yield
        finally:
            _executor.reset(token)


def mapped(
    work: Callable[..., S],
    units: Iterable[Any],
    result: type[S],
    *,
    handles: Mapping[str, Any] | None = None,
    name: str = "unit",
) -> list[S]:
    """`work(unit, **handles)` for every unit: the results, each a `result`, in the order of the units."""
    units, workspace, executor = list(units), _workspace.get(), _executor.get() or _Here()
    results: dict[int, S] = {}
    files: list[Path] = []
    if workspace is not None:
        workspace.calls[name] += 1
        call = f"{name}-{workspace.calls[name]}"
        files = [
            workspace.folder / f"{call}-{i:05d}-{content_of(unit)[:16]}.safetensors" for i, unit in enumerate(units)
        ]
        stored = ((i, read_packed(file, result)) for i, file in enumerate(files))
        results = {i: value for i, value in stored if value is not None}
        workspace.resumed += len(results)
        if results and workspace.progress is not None:
            workspace.progress(name, len(results), len(units))
    pending = [(i, unit) for i, unit in enumerate(units) if i not in results]
    for i, value in executor.results(work, pending, result, handles or {}):
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


class _Here:
    """Units are computed in this process, one after the other."""

    def results(
        self, work: Callable[..., S], units: Sequence[tuple[int, Any]], result: type[S], handles: Mapping[str, Any]
    ) -> Iterator[tuple[int, S]]:
        for i, unit in units:
            # What the work maps itself is a plain loop, as it is on a worker: its files would bear the same names for
            # different units.
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
