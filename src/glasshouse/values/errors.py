"""What does a user see when something they supplied is wrong? One line: the value, the place, the remedy."""


class BadInput(Exception):
    """A user's mistake, told as its cure. The command line prints the line alone and exits with status 2."""

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.split()))


class Unwritable(BadInput):
    """Nothing can be written where it was to be: whoever does many things stops, for the next will fail too."""
