"""How is text of a hostile model, data set or run folder shown without acting on the terminal or page that shows it?

`inert` writes out everything that could act. Four places call it, one for each surface: the console (`console.py`),
the templates' environment (`html.py`), drawings (`charts.py`) and the exchange formats (`exchange.py`). Whoever prints
through these does not escape anything.
"""

import shlex
import unicodedata
from typing import TextIO

LONGEST = 2000
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Control characters; direction overrides, zero-width and other unseen marks; surrogates, private use and unassigned,
some of which XML does not allow; separators that begin a line for some readers only."""
SELECTORS = (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
FILLERS = (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)
BLANK = frozenset(map(chr, (*SELECTORS, *FILLERS)))
"""Letters, marks and signs by their category that are invisible too."""


def inert(text: object, longest: int = LONGEST) -> str:
    """The text, cut to `longest`, with terminal escapes, other controls and direction overrides written out."""
    string = cut(text, longest)
    harmless = string.isprintable() and BLANK.isdisjoint(string)  # almost always, and quick to see
    return string if harmless else "".join(map(_visible, string))


def cut(text: object, longest: int = LONGEST) -> str:
    """The first `longest` characters, and how many there are."""
    string = str(text)
    return string if len(string) <= longest else f"{string[:longest]}… ({len(string):,} characters)"


def one_line(text: object, longest: int = LONGEST) -> str:
    """The text inert and on one line, so that no part of it begins a line and passes for a verdict."""
    return inert(text, longest).replace("\n", "⏎")


def write_line(stream: TextIO, text: object = "") -> None:
    """One inert line, for commands too quick to wait for a console."""
    stream.write(f"{one_line(text)}\n")


def suggested(*words: object) -> str:
    """A command to type next, each word quoted for the shell."""
    return f"Next: {shlex.join(['glasshouse', *map(str, words)])}"


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    unseen = character in BLANK or unicodedata.category(character) in INVISIBLE
    return f"\\x{ord(character):02x}" if unseen else character
