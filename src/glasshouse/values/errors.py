"""What does a user see when something they supplied is wrong? One line: the value, the place, the fix."""

from collections.abc import Iterable


class BadInput(Exception):
    """A mistake in what the user supplied. The command line prints this one line and exits with status 2."""

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.split()))


class Unwritable(BadInput):
    """The output cannot be written. Callers that write several outputs stop, because the next would fail too."""


def meant(word: str, names: Iterable[str]) -> str:
    """The name that was probably meant, as the end of a message; empty where none is close."""
    from difflib import get_close_matches  # after a mistake only

    close = get_close_matches(word.lower(), list(names), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""
