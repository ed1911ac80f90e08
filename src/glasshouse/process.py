"""How does the command end? With a status that no mishap can turn into a verdict.

70   internal error                       130  interrupted (SIGINT)
74   the output cannot be written         141  the reader of the output has left (SIGPIPE)
                                          143  terminated (SIGTERM)
"""

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

from glasshouse.data.network import without_token
from glasshouse.report.inert import cut, write_line
from glasshouse.values.errors import BadInput

BAD_INPUT = 2
INTERNAL_ERROR, LOST_OUTPUT, INTERRUPTED, LEFT_READER, TERMINATED = 70, 74, 130, 141, 143
"""Of sysexits EX_SOFTWARE and EX_IOERR; 128 + SIGINT, SIGPIPE and SIGTERM."""
LONGEST_TRACEBACK = 40_000
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Why a stream can be written no more."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: what is running is interrupted as by Ctrl-C, so that it cleans up."""


def finish(command: Callable[[], int]) -> NoReturn:
    """Run the command and end the process with its status."""
    if sys.stderr is None:  # closed by the caller
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process
    if sys.stdout is None:
        _complain("standard output is closed; redirect it to a file, or to /dev/null")
        sys.exit(LOST_OUTPUT)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook has others
            stream.reconfigure(errors="backslashreplace")
    try:
        with _terminable():
            status = _status(command)
        sys.stdout.flush()
    except BrokenPipeError:  # no verdict: `head` or `less` has ended, as where SIGPIPE ends a process
        status = LEFT_READER
    except OSError as problem:
        status = LOST_OUTPUT
        with suppress(OSError):
            _complain(f"the output cannot be written ({problem.strerror}); make room, or write it elsewhere")
    if status in (LEFT_READER, LOST_OUTPUT):
        _drop_output()
    sys.exit(status)


def _status(command: Callable[[], int]) -> int:
    """The exit status; a problem is told on standard error."""
    try:
        return command()
    except BadInput as problem:
        _complain(problem)
        return BAD_INPUT
    except Terminated:
        _complain("terminated; finished shards are kept, the same command continues")
        return TERMINATED
    except KeyboardInterrupt:
        _complain("interrupted; finished shards are kept, the same command continues")
        return INTERRUPTED
    except Exception as problem:  # an internal error must not pass for a verdict
        if isinstance(problem, BrokenPipeError) or _of_a_stream(problem):
            raise
        first, *others = cut(without_token(traceback.format_exc().rstrip()), LONGEST_TRACEBACK).split("\n")
        for line in (first, *(f"  {line}" for line in others)):  # indented: an error's text may hold lines of its own
            write_line(sys.stderr, line)
        _complain(f"internal error ({problem}); please report it with the lines above")
        return INTERNAL_ERROR


def _complain(problem: object) -> None:
    write_line(sys.stderr, without_token(f"glasshouse: {problem}"))


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, unless whoever started this process has arranged something else."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _of_a_stream(problem: Exception) -> bool:
    """Whether the output failed: unlike a file, a stream has no name."""
    return isinstance(problem, OSError) and problem.errno in LOST and problem.filename is None


def _drop_output() -> None:
    """The interpreter's own last flush must not fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a stream that is no file
            os.dup2(nowhere, stream.fileno())
