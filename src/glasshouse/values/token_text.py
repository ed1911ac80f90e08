"""How is an address among tokens read from its text form? `parse_tokens(str(tokens)) == tokens`.

    address   = atom { ("|" | "&" | "-") atom }                     from left to right
    atom      = "(" address ")" | word | image | phrase | positions | mask
    image     = "image" [ "#" number ] [ "[" low ":" high "," low ":" high "]" ]
    phrase    = quoted [ "#" number ]
    positions = number { "+" number } | [ number ] ":" [ number ] [ ":" number ]
    mask      = "mask(" quoted positions "of" number { "," quoted positions "of" number } ")"

Space between signs means nothing. Phrases are quoted as in Python.
"""

import ast
import math
import re
import warnings
from typing import cast, get_args

from glasshouse.values.errors import BadInput
from glasshouse.values.picks import Pick
from glasshouse.values.tokens import (
    MOST_OPERATIONS,
    Chosen,
    Combined,
    Masks,
    Named,
    Operation,
    Phrase,
    Positions,
    Region,
    Tokens,
    Word,
)


def parse_tokens(text: str) -> Tokens:
    """Read the text form."""
    return _Reader(text).read()


def as_tokens(tokens: Tokens | str | int) -> Tokens:
    """The address itself, the one its text names, or the position of this number."""
    match tokens:
        case Tokens():
            return tokens
        case str():
            return parse_tokens(tokens)
        case int():
            return Positions(Pick(members=(tokens,)))
        case _:
            raise BadInput(f"{tokens!r} names no tokens; give text such as 'image' or '0:4', a position, or Tokens")


DEEPEST, MOST_DIGITS, MOST_TOKENS = MOST_OPERATIONS + 2, 18, 2**20
"""Brackets inside each other, digits of a number, and tokens of a mask. Addresses are also read from strangers' files,
and no address needs more."""

_LEXEME = re.compile(
    r"\s*(?P<quoted>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|\s*(?P<name>[^\W\d]\w*)|\s*(?P<share>\d*\.\d+(?:e-?\d+)?|\d+e-?\d+)"
    r"|\s*(?P<number>\d+)|\s*(?P<sign>[][(),:+#|&-])",
    re.DOTALL,
)


class _Reader:
    """Reads the text form by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text, self.lexemes, self.next = text, list[tuple[str, str]](), 0
        self.depth = 0
        end = 0
        while text[end:].strip():
            match = _LEXEME.match(text, end)
            if match is None:
                raise self.refused()
            kind = str(match.lastgroup)
            self.lexemes.append((kind, match[kind]))
            end = match.end()

    def read(self) -> Tokens:
        tokens = self.combined()
        if self.next < len(self.lexemes):
            raise self.refused()
        return tokens

    def refused(self) -> BadInput:
        if re.fullmatch(r"\w+", self.text) and not self.text[0].isdigit():
            words = ", ".join(get_args(Word))
            return BadInput(
                f"no span is called {self.text}; spans are {words}, positions, an image[region], a 'phrase'"
            )
        shown = repr(self.text if len(self.text) <= 60 else f"{self.text[:60]}…")
        return BadInput(
            f"{shown} names no tokens; write a word ({', '.join(get_args(Word))}), positions like 0:4 or 3+7, "
            "image[rows,columns] or 'a phrase'"
        )

    def peek(self) -> tuple[str, str]:
        return self.lexemes[self.next] if self.next < len(self.lexemes) else ("", "")

    def take(self, *kinds: str) -> str:
        """The next lexeme, which must be of this kind or be this sign."""
        kind, text = self.peek()
        if not kind or (kind not in kinds and text not in kinds):
            raise self.refused()
        self.next += 1
        return text

    def combined(self) -> Tokens:
        tokens = self.atom()
        while self.peek()[0] == "sign" and self.peek()[1] in get_args(Operation):
            operation = cast(Operation, self.take("sign"))
            tokens = Combined(tokens, operation, self.atom())
        return tokens

    def atom(self) -> Tokens:
        kind, text = self.peek()
        if text == "(" and kind == "sign":
            self.take("(")
            self.depth += 1
            if self.depth > DEEPEST:
                raise BadInput(f"{self.text[:40]!r}…: more than {DEEPEST} brackets inside each other; write fewer")
            tokens = self.combined()
            self.depth -= 1
            self.take(")")
            return tokens
        if kind == "quoted":
            return Phrase(self.quoted(), self.occurrence())
        if kind == "name":
            self.take("name")
            if text == "mask":
                return self.masks()
            if text == "image" and self.peek()[1] in ("#", "["):
                return self.region()
            if text not in get_args(Word):
                raise self.refused()
            return Named(cast(Word, text))
        return Positions(self.pick())

    def quoted(self) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes Python does not know, which mean themselves
                return cast(str, ast.literal_eval(self.take("quoted")))
        except (SyntaxError, ValueError):
            raise self.refused() from None

    def occurrence(self) -> int | None:
        if self.peek()[1] != "#":
            return None
        self.take("#")
        return self.integer()

    def integer(self) -> int:
        sign = -1 if self.peek() == ("sign", "-") else 1
        if sign < 0:
            self.take("-")
        digits = self.take("number")
        if len(digits) > MOST_DIGITS:
            raise self.refused()
        return sign * int(digits)

    def share(self) -> float:
        share = float(self.take("share", "number"))
        if not math.isfinite(share):
            raise self.refused()
        return share

    def pair(self) -> tuple[float, float]:
        low = self.share()
        self.take(":")
        return low, self.share()

    def region(self) -> Region:
        image, rows, columns = self.occurrence(), (0.0, 1.0), (0.0, 1.0)
        if self.peek()[1] == "[":
            self.take("[")
            rows = self.pair()
            self.take(",")
            columns = self.pair()
            self.take("]")
        return Region(rows, columns, image)

    def pick(self) -> Pick:
        """`3`, `-1`, `3+7` or `0:4:2`; either bound of a range may be missing."""

        def bound() -> int | None:
            kind, text = self.peek()
            return self.integer() if kind == "number" or (kind, text) == ("sign", "-") else None

        first = bound()
        if self.peek()[1] == ":":
            bounds = [first]
            while self.peek()[1] == ":" and len(bounds) < 3:
                self.take(":")
                bounds.append(bound())
            start, stop, step = [*bounds, None][:3]
            return Pick(start=start, stop=stop, step=step)
        if first is None:
            raise self.refused()
        members = [first]
        while self.peek()[1] == "+":
            self.take("+")
            members.append(self.integer())
        return Pick(members=tuple(members))

    def masks(self) -> Masks:
        self.take("(")
        entries: list[Chosen] = []
        while self.peek()[1] != ")":
            if entries:
                self.take(",")
            entries.append(self.chosen())
        self.take(")")
        return Masks(tuple(entries))

    def chosen(self) -> Chosen:
        example, numbers = self.quoted(), list[int]()
        if self.peek() == ("name", "none"):
            self.take("name")
        else:
            while True:
                first = self.integer()
                ends = self.peek()[1] == ":"
                if ends:
                    self.take(":")
                run = range(first, self.integer()) if ends else range(first, first + 1)
                if len(numbers) + len(run) > MOST_TOKENS:
                    raise BadInput(f"mask of example {example}: more than {MOST_TOKENS:,} tokens; name fewer")
                numbers += run
                if self.peek()[1] != "+":
                    break
                self.take("+")
        if self.take("name") != "of":
            raise self.refused()
        return Chosen(example, tuple(numbers), self.integer())
