"""How does long work survive a kill? It is cut into shards whose results add up, and each is on disk before the
next begins.

    tally = over_shards(lambda shard: look(subject, shard), examples, Tally)

`Tally` is a dataclass with `+`. Inside a run, finished shards are read back instead of computed again; outside,
this is a plain loop. A shard's file is named by the content of its examples, so what was computed for other data is
never taken for it.
"""

import errno
import functools
import json
import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from glasshouse.data.examples import Examples
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput, Unwritable

S = TypeVar("S")
Progress = Callable[[str, int, int], None]
"""Told what is being done, how many shards are done, and of how many."""
CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room and run it again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder that you may write in"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "what lies above it is no folder: choose another place"),
    errno.EISDIR: "that is a folder: name a file in it",
}
"""What to do where a file cannot be written, by why."""


@dataclass
class Workspace:
    """Where the shards of one unfinished run lie."""

    folder: Path
    progress: Progress | None = None
    resumed: int = field(default=0, init=False)
    """Shards read back rather than computed."""


_workspace: ContextVar[Workspace | None] = ContextVar("workspace", default=None)


@contextmanager
def working_in(workspace: Workspace) -> Iterator[Workspace]:
    """Inside, `over_shards` keeps its results there."""
    token = _workspace.set(workspace)
    try:
        yield workspace
    finally:
        _workspace.reset(token)


def over_shards(
    work: Callable[[Examples], S], examples: Examples, kind: type[S], *, name: str = "shard", size: int = 16
) -> S:
    """`work` on `size` examples at a time, added up in order."""
    if not len(examples):
        raise BadInput("there are no examples to work on")
    workspace, total = _workspace.get(), -(-len(examples) // size)
    results: list[S] = []
    for number, shard in enumerate(examples.batches(size)):
        if workspace is None:
            results.append(work(shard))
            continue
        file = workspace.folder / f"{name}-{number:05d}-{shard.digest[:16]}.safetensors"
        done = _read(file, kind)
        if done is None:
            done = work(shard)
            write_whole(file, packed_bytes(done))
        else:
            workspace.resumed += 1
        results.append(done)
        if workspace.progress is not None:
            workspace.progress(name, number + 1, total)
    return functools.reduce(operator.add, results)  # pyright: ignore[reportArgumentType] - S is what has `+`


def packed_bytes(value: Any) -> bytes:
    """A packed value as the bytes of one safetensors file."""
    tree, tensors = pack(value)
    return save(tensors, metadata={"tree": json.dumps(tree)})


def write_whole(file: Path, content: bytes) -> None:
    """Write aside, flush to the disk, rename: the file is there whole or not at all."""
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        aside.rename(file)
    except OSError as problem:
        cure = CURES.get(problem.errno or 0, "choose another place and run it again")
        raise Unwritable(f"{file}: cannot be written ({problem.strerror or problem}); {cure}") from None
    finally:
        with suppress(OSError):  # where nothing could be written, nothing can be taken away either
            aside.unlink()


def _read(file: Path, kind: type[S]) -> S | None:
    """A finished shard, or None where there is none that can be used."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - no mapping
            tree = json.loads((opened.metadata() or {})["tree"])
        return unpack(kind, tree, tensors)
    except (SafetensorError, OSError, KeyError, ValueError, BadInput):
        return None
