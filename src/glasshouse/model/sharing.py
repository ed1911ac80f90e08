"""What several questions look at is computed once. Inside `sharing()`, whoever asks `shared` for what was asked before
is given the same values again; outside, everything is computed when it is asked for.

Keys name models by the content of their weights and pictures by the content of their pixels, so nothing that differs
is ever taken for the same. Values are lent: who gets one does not write into it. What was not asked for longest goes
first when they grow too many.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from glasshouse.values.codec import tensor_bytes

T = TypeVar("T", bound=Tensor | tuple[Tensor, ...])
MOST = 2**30
"""Bytes that are kept."""


Marks = tuple[tuple[int, int], ...]
"""Where each tensor's memory is, and how often it was written to."""


def marks(tensors: Iterable[Tensor]) -> Marks:
    """Equal as long as nobody replaced or wrote to any of these tensors."""
    return tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)


@dataclass
class Shared:
    """What was computed so far."""

    values: OrderedDict[str, Tensor | tuple[Tensor, ...]] = field(default_factory=OrderedDict)
    names: WeakKeyDictionary[nn.Module, tuple[Marks, str]] = field(
        default_factory=WeakKeyDictionary[nn.Module, tuple[Marks, str]]
    )
    """Of models whose weights were hashed."""
    saved: int = 0
    """How often a value was given again."""

    def put(self, key: str, value: Tensor | tuple[Tensor, ...]) -> None:
        self.values[key] = value
        while len(self.values) > 1 and sum(map(_bytes, self.values.values())) > MOST:
            self.values.popitem(last=False)


_now: ContextVar[Shared | None] = ContextVar("shared", default=None)


@contextmanager
def sharing() -> Iterator[Shared]:
    """Inside, values are kept."""
    kept = Shared()
    token = _now.set(kept)
    try:
        yield kept
    finally:
        _now.reset(token)


def shared(key: Callable[[], tuple[object, ...] | None], compute: Callable[[], T]) -> T:
    """The value under this key: as it was computed before, or computed now. A key of None is like nothing else."""
    kept = _now.get()
    parts = key() if kept is not None else None
    if kept is None or parts is None:
        return compute()
    name = "|".join(map(str, parts))
    if name in kept.values:
        kept.saved += 1
        kept.values.move_to_end(name)
        return cast(T, kept.values[name])
    value = compute()
    kept.put(name, value)
    return value


def name_of(model: nn.Module, weights: Callable[[], Iterable[Tensor]]) -> str:
    """A name for some of a model's weights, hashed again only when one was replaced or written to."""
    names = kept.names if (kept := _now.get()) else WeakKeyDictionary[nn.Module, tuple[Marks, str]]()
    now = marks(weights())
    if model not in names or names[model][0] != now:
        names[model] = now, content(weights())
    return names[model][1]


def content(tensors: Iterable[Tensor]) -> str:
    """A name for these values, their types and shapes."""
    running = hashlib.sha256()
    for tensor in tensors:
        running.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        running.update(tensor_bytes(tensor))
    return running.hexdigest()


def _bytes(value: Tensor | tuple[Tensor, ...]) -> int:
    return sum(one.nbytes for one in ((value,) if isinstance(value, Tensor) else value))
