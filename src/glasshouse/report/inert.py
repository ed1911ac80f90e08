"""How is text from a hostile model or data set shown without coming alive? Made inert here; HTML is escaped by the
templates besides."""

import unicodedata

LONGEST = 2000
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Escape and its kin; direction overrides, zero-width and other unseen marks; surrogates, private use and unassigned:
no character at all, some of which XML does not allow; what begins a line for some readers and for others not."""
SELECTORS = (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
FILLERS = (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0)
BLANK = frozenset(map(chr, (*SELECTORS, *FILLERS)))
"""Letters, marks and signs by their category, of which nothing is seen either."""


def inert(text: object, longest: int = LONGEST) -> str:
    """The text with everything that could act written out: terminal escapes, other controls, direction overrides.
    Cut to `longest`."""
    string = str(text)
    shown = "".join(_visible(character) for character in string[:longest])
    return shown if len(string) <= longest else f"{shown}… ({len(string):,} characters)"


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    unseen = character in BLANK or unicodedata.category(character) in INVISIBLE
    return f"\\x{ord(character):02x}" if unseen else character
