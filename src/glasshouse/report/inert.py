"""How is text from a hostile model or data set shown without coming alive? Made inert here; HTML is escaped by the
templates besides."""

import unicodedata

LONGEST = 2000


def inert(text: object, longest: int = LONGEST) -> str:
    """The text with everything that could act written out: terminal escapes, other controls, direction overrides.
    Cut to `longest`."""
    string = str(text)
    shown = "".join(_visible(character) for character in string[:longest])
    return shown if len(string) <= longest else f"{shown}… ({len(string):,} characters)"


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    # Cc: escape and its kin. Cf: direction overrides, zero-width and other invisible marks. Cs, Co: no character at
    # all.
    return f"\\x{ord(character):02x}" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") else character
