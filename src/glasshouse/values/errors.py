"""What does a user see when something they supplied is wrong? One line: the value, the place, the fix."""


class BadInput(Exception):
    """A mistake in what the user supplied. The command line prints this one line and exits with status 2."""

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.split()))


class Unwritable(BadInput):
    """The output cannot be written. Callers that write several outputs stop, because the next would fail too."""
