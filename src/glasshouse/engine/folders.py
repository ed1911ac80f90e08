"""How does a folder exist whole or not at all? Work goes on in a hidden folder beside it, which is renamed at the end.

Unfinished work lies in `ROOT/.unfinished/KEY`, where KEY names the work: the same work, begun again after a kill, finds
there what is done. `KEY.lock` beside it keeps other processes out meanwhile.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from glasshouse.values.errors import BadInput, Unwritable

HIDDEN = ".unfinished"
TRIES = 100
"""A try fails only where another process has just removed the folder."""
PATIENCE = 0.2
"""Seconds to wait for a lock: one whose file its holder is just removing is free at once."""


@contextmanager
def workplace(root: Path, key: str) -> Iterator[Path]:
    """A folder for one piece of work, for one process at a time. It is removed when the work is done, and when refused
    work has left it empty; it is kept, to be continued, after an interruption, an error or a full disk."""
    work = root / HIDDEN / key
    created = [work.parent, *absent(root)]
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
            raise  # not about these folders
        raise Unwritable(
            f"{root}: runs cannot be written there ({problem.strerror}); choose another folder with --runs"
        ) from None
    finally:
        discard_empty(created)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Inside, only files of this run are written, so an error is the disk's."""
    try:
        yield
    except (OSError, SafetensorError) as problem:  # safetensors has an error of its own for a full disk
        reason = getattr(problem, "strerror", None) or problem
        raise Unwritable(f"{root}: writing the run failed ({reason}); finished parts are kept, run it again") from None


def placed(finished: Path, folder: Path) -> Path:
    """Rename a finished folder, with a number behind its name where that is taken."""
    free, count = folder, 1
    while free.exists():  # two runs of the same work within a second
        count += 1
        free = folder.with_name(f"{folder.name}-{count}")
    finished.rename(free)
    return free


def absent(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist yet, the innermost first."""
    return list(takewhile(lambda path: not os.path.exists(path), [folder, *folder.parents]))


def discard_empty(folders: Iterable[Path]) -> None:
    """Remove those that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """The lock ends with the process, however that ends. Its holder removes the file."""
    lock = _acquired(file)
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file; it goes with its folder later
            file.unlink(missing_ok=True)
        lock.release()


def _acquired(file: Path) -> FileLock:
    """Another process that ends may remove the folder between two steps; then both are tried again."""
    root, lock = file.parent.parent, FileLock(file)
    for left in reversed(range(TRIES)):
        new = not os.path.exists(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 10)
        except Timeout:
            raise BadInput(f"{root}: another process is running this very work; wait for it") from None
        except (FileNotFoundError, FileExistsError):
            if not left:
                raise
        except PermissionError:
            raise  # the folder is at fault, not its file system
        except OSError as problem:
            if new:
                file.unlink(missing_ok=True)
            raise Unwritable(
                f"{root}: the file system there cannot lock files ({problem.strerror or problem}); "
                "choose a folder on another one with --runs"
            ) from None
        else:
            return lock
    raise BadInput(f"{root}: other processes keep running this very work; wait for them")
