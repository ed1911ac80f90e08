"""What happens when a stranger's file breaks the library that reads it? One line for the user, whatever is raised.

Configurations, tokenizers, templates and weights are read by transformers, tokenizers, jinja2, safetensors and peft,
which raise whatever the broken file leads to, also panics of compiled code. `strangers_files` turns all of it into
`BadInput`; `within` also ends what would never end.
"""

import ctypes
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from glasshouse.data.network import attempt
from glasshouse.values.errors import BadInput

R = TypeVar("R")
LONGEST_REASON = 300
"""Characters of another library's message that are repeated."""
MOST_TEXT = 2**28
"""Bytes of a JSON or list file."""
POLL_SECONDS = 0.05
MOST_BYTES = 2 * 2**30
"""Memory that a stranger's program may take."""
PROGRAMMING_ERRORS = (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, NameError)
"""Their messages say nothing without their names."""


@contextmanager
def strangers_files(name: object, problem: str, fix: str) -> Iterator[None]:
    """Inside, a stranger's files are read: whatever they raise becomes `NAME: PROBLEM (reason); FIX`."""
    try:
        yield
    except BadInput:
        raise
    except (MemoryError, torch.OutOfMemoryError) as cause:
        raise BadInput(
            f"{name}: {problem} (out of memory); free memory, or use a smaller --dtype or more devices (--device auto)"
        ) from cause
    except BaseException as cause:
        if not isinstance(cause, Exception) and not _panic(cause):
            raise  # Ctrl-C and the like
        address = attempt(cause)
        if address is not None:
            raise BadInput(f"{name}: would use the network ({address}); add --download to allow it") from cause
        raise BadInput(f"{name}: {problem} ({reason(cause)}); {fix}") from cause


def reason(cause: BaseException) -> str:
    """An exception's message in one short line."""
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    line = " ".join(str(cause).split())
    if not line or isinstance(cause, PROGRAMMING_ERRORS) or _panic(cause):
        line = f"{type(cause).__name__}: {line}".removesuffix(": ")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}…"


def read_bounded(file: Path, most: int = MOST_TEXT) -> str:
    """The text of an ordinary file of at most `most` bytes; ValueError for a device, a pipe or a larger file, which
    would never end or fill the memory."""
    if file.exists() and not file.is_file():
        raise ValueError("a folder, pipe or device, not a file")
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"larger than {most:,} bytes")
    return content.decode("utf-8")


def read_object(file: Path, most: int = MOST_TEXT) -> dict[str, Any]:
    """The JSON object in a file; ValueError where it holds anything else."""
    try:
        tree = json.loads(read_bounded(file, most))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(tree, dict):
        raise ValueError("not a JSON object")
    return cast(dict[str, Any], tree)


def within(seconds: float, work: Callable[[], R]) -> R:
    """The result of work that a stranger wrote, such as a template; it is stopped when its time or memory is over."""
    results: list[R] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as cause:  # noqa: BLE001 - raised again by whoever waits
            failures.append(cause)

    thread = threading.Thread(target=run, daemon=True)
    began, before = time.monotonic(), _resident()
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        if thread.is_alive() and time.monotonic() - began > seconds:
            _stop(thread)
            raise TimeoutError(f"not finished after {seconds:g} seconds")
        if thread.is_alive() and _resident() - before > MOST_BYTES:
            _stop(thread)
            raise ValueError(f"it filled {MOST_BYTES / 2**30:.0f} GiB of memory")
    if failures:
        raise failures[0]
    return results[0]


def _stop(thread: threading.Thread) -> None:
    """Python code notices this at its next instruction; a compiled function only when it returns."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeoutError))


def _resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _panic(cause: BaseException) -> bool:
    """Whether compiled Rust code (tokenizers, safetensors) panicked; the class has no public home."""
    return type(cause).__name__ == "PanicException"
