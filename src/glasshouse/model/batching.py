"""How many examples are shown at once? As many as were asked for, half as many each time memory runs out, and with
`auto` twice as many as long as the memory that a batch was measured to take leaves room.

    with sized(auto=True) as sizes: ...        # batches grow and shrink inside; sizes.smallest, sizes.largest
    @shrinking                                 # a function that shows examples: repeated in smaller batches

Every function that shows examples takes its batches from `portions`. A function that ran out of memory is repeated
from its start, so its result is the one that the smaller batches give; what was finished before it is kept.
"""

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import torch

from glasshouse.model.machine import free_memory
from glasshouse.values.errors import BadInput

P = ParamSpec("P")
R = TypeVar("R")
Auto = Literal["auto"]
AUTO: Auto = "auto"
MOST = 1024
"""Larger batches gain nothing."""
MARGIN = 1.3
"""What a batch may take beyond what its half was measured to take twice."""
CPU_FAILURES = ("not enough memory", "can't allocate memory", "cannot allocate memory")
"""How PyTorch words that main memory is full, in a plain RuntimeError."""
PROCESS = Path("/proc/self")


def out_of_memory(problem: BaseException) -> bool:
    """Whether a failure says that memory, of a GPU or the main memory, is full."""
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem).lower() for words in CPU_FAILURES)


@dataclass
class Sizes:
    """The sizes of the batches of one run."""

    auto: bool = False
    limit: int = sys.maxsize
    """Halved when memory runs out."""
    grown: int = 0
    """What `auto` has grown to."""
    smallest: int = 0
    largest: int = 0
    halved: int = 0
    """How often memory ran out."""
    tried: int = 0
    """The largest size since it last ran out."""

    def of(self, size: int) -> int:
        """How many to show now, where a caller asks for `size` of them."""
        return min(max(size, self.grown), self.limit)

    def used(self, count: int) -> None:
        self.tried, self.largest = max(self.tried, count), max(self.largest, count)
        self.smallest = min(self.smallest or count, count)

    def shrink(self) -> bool:
        """Halve the size after memory ran out; False where it was one already."""
        if self.tried <= 1:
            return False
        self.limit, self.grown, self.tried, self.halved = self.tried // 2, 0, 0, self.halved + 1
        return True

    def grow(self, count: int, taken: int, free: int) -> None:
        """Double the size where a batch of `count` left room for it."""
        if MARGIN * 2 * taken <= free + taken:
            self.grown = max(self.grown, min(2 * count, self.limit, MOST))


_sizes: ContextVar[Sizes | None] = ContextVar("sizes", default=None)


@contextmanager
def sized(*, auto: bool = False) -> Iterator[Sizes]:
    """Inside, all batches share their sizes."""
    sizes = Sizes(auto)
    token = _sizes.set(sizes)
    try:
        yield sizes
    finally:
        _sizes.reset(token)


@contextmanager
def _shared() -> Iterator[Sizes]:
    """The sizes in force; new ones where there are none."""
    now = _sizes.get()
    if now is not None:
        yield now
    else:
        with sized() as sizes:
            yield sizes


def growing() -> bool:
    """Whether batches grow now."""
    now = _sizes.get()
    return now is not None and now.auto


def shrinking(function: Callable[P, R]) -> Callable[P, R]:
    """Repeat a function in smaller batches when memory runs out. What it returns is not begun before it ends."""

    @functools.wraps(function)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> R:
        return repeating(lambda: function(*args, **kwargs))

    return repeated


def repeating(work: Callable[[], R], again: Callable[[], None] = lambda: None) -> R:
    """The result of `work`, in batches that are halved until they fit; `again` is called before each repetition."""
    with _shared() as sizes:
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as problem:
                if not out_of_memory(problem) or not sizes.shrink():
                    raise
            release()  # outside of the handler, whose traceback keeps the tensors of the failed batch alive
            again()


def release() -> None:
    """Give back what the failed batch held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def portions(count: int, size: int, device: torch.device) -> Iterator[slice]:
    """Which of `count` examples are shown together, `size` at a time unless memory has told otherwise."""
    if size < 1:
        raise BadInput(f"batch_size {size}: a batch has 1 example or more")
    sizes, start = _sizes.get() or Sizes(), 0
    while start < count:
        now = min(sizes.of(size), count - start)
        sizes.used(now)
        memory = _Memory(device) if sizes.auto else None
        yield slice(start, start + now)
        if memory is not None and memory.free is not None and now == sizes.of(size):
            sizes.grow(now, memory.taken, memory.free)
        start += now


class _Memory:
    """What is taken on a device from now on, at the worst moment."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_gpu = device, device.type == "cuda"
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        with suppress(OSError):  # where Linux does not allow it the peak is that of the process, and growth is slower
            (PROCESS / "clear_refs").write_text("5", "ascii")
        self.before = torch.cuda.memory_allocated(device) if self.on_gpu else _status("VmRSS") or 0

    @property
    def taken(self) -> int:
        peak = torch.cuda.max_memory_allocated(self.device) if self.on_gpu else _status("VmHWM") or 0
        return max(0, peak - self.before)

    @property
    def free(self) -> int | None:
        """Bytes; None where the system does not say what this process takes, so that nothing grows."""
        known = self.on_gpu or _status("VmHWM") is not None
        return free_memory(self.device) if known else None


def _status(name: str) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in (PROCESS / "status").read_text("ascii", "replace").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
