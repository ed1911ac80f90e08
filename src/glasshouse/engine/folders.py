"""How does a folder exist whole or not at all? Work goes on in a hidden folder beside it, which is renamed at the end.

What is unfinished lies in `ROOT/.unfinished/KEY`, where KEY names the work: whoever begins the same work after a kill
finds there what was done.
"""

import fcntl
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from glasshouse.values.errors import BadInput

HIDDEN = ".unfinished"


@contextmanager
def workplace(root: Path, key: str) -> Iterator[Path]:
    """A folder for one piece of work, for one process at a time. Gone when the work is done; kept, for who goes on,
    when it is interrupted or the disk is full; and not left behind by work that was refused."""
    work = root / HIDDEN / key
    made = [folder for folder in (root, work.parent, work) if not folder.exists()]
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(
            f"{root}: runs cannot be written there ({problem.strerror}); choose another folder with --runs"
        ) from None
    try:
        with _locked(work):
            yield work
    except BadInput:
        (work / "lock").unlink(missing_ok=True)
        _discard_empty(reversed(made))  # never costs finished parts
        raise
    except (OSError, SafetensorError) as problem:  # safetensors has an error of its own for a full disk
        reason = getattr(problem, "strerror", None) or problem
        raise BadInput(f"{root}: writing the run failed ({reason}); finished parts are kept, run it again") from None
    shutil.rmtree(work, ignore_errors=True)
    _discard_empty([work.parent])


def placed(made: Path, folder: Path) -> Path:
    """Rename what was made; with a number behind its name where that is taken."""
    (made / "lock").unlink(missing_ok=True)
    free, count = folder, 1
    while free.exists():  # two answers to the same question within a second
        count += 1
        free = folder.with_name(f"{folder.name}-{count}")
    made.rename(free)
    return free


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """The lock goes with the process, however it ends."""
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"{work.parent.parent}: another process is asking this very question; wait for it") from None
        yield
        (work / "lock").unlink(missing_ok=True)


def _discard_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
