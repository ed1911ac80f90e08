"""How does a folder exist whole or not at all? Work goes on in a hidden folder beside it, which is renamed at the end.

What is unfinished lies in `ROOT/.unfinished/KEY`, where KEY names the work: whoever begins the same work after a kill
finds there what was done. `KEY.lock` beside it keeps others out while somebody is at it.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from glasshouse.values.errors import BadInput, Unwritable

HIDDEN = ".unfinished"


@contextmanager
def workplace(root: Path, key: str) -> Iterator[Path]:
    """A folder for one piece of work, for one process at a time. Gone when the work is done; kept, for who goes on,
    when it is interrupted, breaks down or the disk is full; and not left behind by work that was refused."""
    work = root / HIDDEN / key
    ours = [work.parent] if root.exists() else [work.parent, root]
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        with _locked(work.with_name(f"{key}.lock")):
            work.mkdir(exist_ok=True)
            try:
                yield work
            except BadInput:
                _discard_empty([work])  # never costs finished parts
                raise
            shutil.rmtree(work, ignore_errors=True)
    except OSError as problem:
        if problem.filename is None or not str(problem.filename).startswith(str(root)):
            raise  # somebody else's trouble
        raise Unwritable(
            f"{root}: runs cannot be written there ({problem.strerror}); choose another folder with --runs"
        ) from None
    finally:
        _discard_empty(ours)


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


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """The lock goes with the process, however it ends. Only who holds it takes the file away, and whoever waited for a
    file that was taken away has locked nothing."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"{file.parent.parent}: another process is asking this very question; wait for it") from None
        if not file.exists() or os.fstat(lock.fileno()).st_ino != file.stat().st_ino:
            raise BadInput(f"{file.parent.parent}: another process has just asked this very question; ask again")
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _discard_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
