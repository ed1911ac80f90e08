"""How does a folder exist whole or not at all? Work goes on in a hidden folder beside it, which is renamed at the end.

What is unfinished lies in `ROOT/.unfinished/KEY`, where KEY names the work: whoever begins the same work after a kill
finds there what was done. `KEY.lock` beside it keeps others out while somebody is at it.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import TextIO

from safetensors import SafetensorError

from glasshouse.values.errors import BadInput, Unwritable

HIDDEN = ".unfinished"
TRIES = 100
"""Each that fails is one in which another process has got on."""


@contextmanager
def workplace(root: Path, key: str) -> Iterator[Path]:
    """A folder for one piece of work, for one process at a time. Gone when the work is done; kept, for who goes on,
    when it is interrupted, breaks down or the disk is full; and not left behind by work that was refused."""
    work = root / HIDDEN / key
    ours = [work.parent, *absent(root)]
    try:
        with _locked(work.with_name(f"{key}.lock")):
            work.mkdir(exist_ok=True)
            try:
                yield work
            except BadInput:
                discard_empty([work])  # never costs finished parts
                raise
            shutil.rmtree(work, ignore_errors=True)
    except OSError as problem:
        if problem.filename is None or not str(problem.filename).startswith(str(root)):
            raise  # somebody else's trouble
        raise Unwritable(
            f"{root}: runs cannot be written there ({problem.strerror}); choose another folder with --runs"
        ) from None
    finally:
        discard_empty(ours)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Inside, only our own files are written: what fails is the disk's fault."""
    try:
        yield
    except (OSError, SafetensorError) as problem:  # safetensors has an error of its own for a full disk
        reason = getattr(problem, "strerror", None) or problem
        raise Unwritable(f"{root}: writing the run failed ({reason}); finished parts are kept, run it again") from None


def placed(made: Path, folder: Path) -> Path:
    """Rename what was made; with a number behind its name where that is taken."""
    free, count = folder, 1
    while free.exists():  # two answers to the same question within a second
        count += 1
        free = folder.with_name(f"{folder.name}-{count}")
    made.rename(free)
    return free


def absent(folder: Path) -> list[Path]:
    """What will have to be made for it: the folder and all above it that are not there, the innermost first."""
    return list(takewhile(lambda one: not os.path.exists(one), [folder, *folder.parents]))


def discard_empty(folders: Iterable[Path]) -> None:
    """Take away those that are empty; one in which something lies stays."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """The lock goes with the process, however it ends. Only who holds it takes the file away."""
    with _lock(file):
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _lock(file: Path) -> TextIO:
    """Others take their file away when they end, and its folder if that leaves it empty. Whoever is between two steps
    then has no folder to write in, or has locked a file that nobody else will find: both are tried again."""
    for left in reversed(range(TRIES)):
        new = not os.path.exists(file)
        with ExitStack() as closing:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                lock = closing.enter_context(file.open("w"))
            except (FileNotFoundError, FileExistsError):
                if left:
                    continue
                raise
            _take(lock, file, new)
            if _still_there(lock, file):
                closing.pop_all()
                return lock
    raise BadInput(f"{file.parent.parent}: other processes keep asking this very question; wait for them")


def _take(lock: TextIO, file: Path, new: bool) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(f"{file.parent.parent}: another process is asking this very question; wait for it") from None
    except OSError as problem:
        if new:
            file.unlink(missing_ok=True)
        raise Unwritable(
            f"{file.parent.parent}: the file system there cannot lock files ({problem.strerror or problem}); "
            "choose a folder on another one with --runs"
        ) from None


def _still_there(lock: TextIO, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except FileNotFoundError:
        return False
