"""How is text from a hostile model or data set shown without coming alive? Made inert here; HTML is escaped by the
templates besides."""

import unicodedata

LONGEST = 2000
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Escape and its kin; direction overrides, zero-width and other unseen marks; surrogates, private use and unassigned:
no character at all, some of which XML does not allow."""


def inert(text: object, longest: int = LONGEST) -> str:
    """The text with everything that could act written out: terminal escapes, other controls, direction overrides.
    Cut to `longest`."""
    string = str(text)
    shown = "".join(_visible(character) for character in string[:longest])
    return shown if len(string) <= longest else f"{shown}… ({len(string):,} characters)"


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    return f"\\x{ord(character):02x}" if unicodedata.category(character) in INVISIBLE else character
