"""Which tokens? An address among the tokens of a prompt and its answer, as a value with one text form.

| text                     | tokens                                                                                  |
|--------------------------|-----------------------------------------------------------------------------------------|
| `all`                    | every token that is not padding                                                         |
| `image`, `text`          | those that stand for an image; all others, the answer's among them                      |
| `last`                   | the prompt's last, which predicts the answer's first                                    |
| `answer`                 | the answer: teacher-forced, or generated so far                                         |
| `0:4`, `-1`, `3+7`       | positions in the prompt: padding does not count, images do, `-1` is its last token      |
| `image[0:0.5,0.25:1]`    | image tokens that show the upper half (rows), right of the first quarter (columns)      |
| `image#2`                | the second image of each example; `image#2[0:0.5,0:1]` is a region of it                |
| `'the cat'`              | every token of the prompt that holds a character of this phrase, wherever it occurs     |
| `'the cat'#1`            | its first occurrence; `#-1` its last                                                    |
| `mask('12' 0:4+9 of 31)` | these positions of the prompt of example 12, which has 31 tokens; one entry per example |

`a | b` unites two addresses, `a & b` intersects them, `a - b` takes the second from the first; they are read from left
to right, and brackets group: `text - ('the cat' | last)`.

A region is given in shares of the image as the model sees it, after its processor has resized and cropped it: rows from
the top, columns from the left. It selects every cell that it overlaps. Where an image is split into tiles, a region
selects the cells that show it in each tile and in the overview. `token_text.py` reads the text form,
`model/addresses.py` resolves addresses in a prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast

import torch
from jaxtyping import Bool
from torch import Tensor

from glasshouse.values.errors import BadInput
from glasshouse.values.picks import Pick

Word = Literal["all", "image", "text", "last", "answer"]
Operation = Literal["|", "&", "-"]
MOST_OPERATIONS = 64
"""Addresses nest, and what nests without end exhausts the stack."""


@dataclass(frozen=True)
class Tokens:
    """An address among tokens. `parse_tokens(str(tokens)) == tokens`."""

    def __or__(self, other: "Tokens") -> "Tokens":
        return Combined(self, "|", other)

    def __and__(self, other: "Tokens") -> "Tokens":
        return Combined(self, "&", other)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Combined(self, "-", other)


@dataclass(frozen=True)
class Named(Tokens):
    """Tokens by the word for what they are."""

    word: Word

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True)
class Positions(Tokens):
    """Tokens of the prompt by number."""

    pick: Pick

    def __str__(self) -> str:
        return str(self.pick)


@dataclass(frozen=True)
class Region(Tokens):
    """Part of an image, in shares of its height and width; of one image of each example, counted from 1, or of all."""

    rows: tuple[float, float] = (0.0, 1.0)
    columns: tuple[float, float] = (0.0, 1.0)
    image: int | None = None

    def __post_init__(self) -> None:
        for low, high in (self.rows, self.columns):
            if not 0 <= low < high <= 1:
                raise BadInput(
                    f"image region {_number(low)}:{_number(high)}: rows and columns are shares from 0 to 1, low:high"
                )
        if self.image is not None and self.image < 1:
            raise BadInput(f"image#{self.image}: images are counted from 1")

    @property
    def whole(self) -> bool:
        """All of the image."""
        return (self.rows, self.columns) == ((0, 1), (0, 1))

    def __str__(self) -> str:
        number = "" if self.image is None else f"#{self.image}"
        shares = ",".join(f"{_number(low)}:{_number(high)}" for low, high in (self.rows, self.columns))
        return f"image{number}" + ("" if self.image is not None and self.whole else f"[{shares}]")


@dataclass(frozen=True)
class Phrase(Tokens):
    """Tokens of the prompt that hold this text: every occurrence, or one, counted from 1 (from the end: -1)."""

    text: str
    occurrence: int | None = None

    def __post_init__(self) -> None:
        if not self.text:
            raise BadInput("'': an empty phrase selects no token; write the text to find in the prompt")
        if self.occurrence == 0:
            raise BadInput(f"{self.text!r}#0: occurrences are counted from 1, or from the end with -1")

    def __str__(self) -> str:
        return repr(self.text) + ("" if self.occurrence is None else f"#{self.occurrence}")


@dataclass(frozen=True)
class Chosen:
    """Positions in the prompt of one example, which has `length` tokens."""

    example: str
    positions: tuple[int, ...]
    length: int

    def __post_init__(self) -> None:
        if any(not 0 <= position < self.length for position in self.positions):
            raise BadInput(f"mask of example {self.example}: a position outside its {self.length} tokens")
        if list(self.positions) != sorted(set(self.positions)):
            raise BadInput(f"mask of example {self.example}: positions must rise")

    def __str__(self) -> str:
        return f"{self.example!r} {'+'.join(_ranges(self.positions)) or 'none'} of {self.length}"


@dataclass(frozen=True)
class Masks(Tokens):
    """Positions chosen for each example apart; examples are named by their id."""

    entries: tuple[Chosen, ...]

    def __post_init__(self) -> None:
        names = [entry.example for entry in self.entries]
        repeated = (
            next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        )
        if repeated is not None:
            raise BadInput(f"mask: example {repeated!r} is named twice")

    @classmethod
    def of_examples(cls, masks: Mapping[str, Bool[Tensor, " tokens"]]) -> Self:
        """From a boolean tensor per example id: True at the tokens of its prompt that are meant."""
        for name, mask in masks.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 1:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise BadInput(f"mask of example {name}: give a boolean tensor with one entry per token of its prompt")
        return cls(
            tuple(
                Chosen(name, tuple(i for i, chosen in enumerate(mask.unbind()) if chosen), len(mask))
                for name, mask in masks.items()
            )
        )

    def __str__(self) -> str:
        return f"mask({', '.join(map(str, self.entries))})"


@dataclass(frozen=True)
class Combined(Tokens):
    """Two addresses joined by a set operation."""

    left: Tokens
    operation: Operation
    right: Tokens

    def __post_init__(self) -> None:
        if self.operations > MOST_OPERATIONS:
            raise BadInput(
                f"an address of more than {MOST_OPERATIONS} set operations; name many tokens by a sum such as 3+7+9, a "
                "range or a mask"
            )

    @property
    def operations(self) -> int:
        """Set operations in it, this included."""
        return 1 + sum(side.operations for side in (self.left, self.right) if isinstance(side, Combined))

    def __str__(self) -> str:
        right = f"({self.right})" if isinstance(self.right, Combined) else str(self.right)
        left = str(self.left)
        if left.endswith(":"):  # behind an open range, a minus would read as the sign of its end
            left = f"({left})"
        return f"{left}{self.operation}{right}"


ALL = Named("all")


def phrase(text: str, occurrence: int | None = None) -> Phrase:
    """Tokens of the prompt that hold this text: `language.residual[3] @ phrase("the cat")`."""
    return Phrase(text, occurrence)


def region(
    rows: tuple[float, float] = (0.0, 1.0), columns: tuple[float, float] = (0.0, 1.0), image: int | None = None
) -> Region:
    """Image tokens that show these shares of the height and the width."""
    return Region(rows, columns, image)


def positions(*index: int | slice) -> Tokens:
    """Tokens of the prompt by number, or by one slice: `positions(3, 7)`, `positions(slice(0, 4))`."""
    one_slice = len(index) == 1 and isinstance(index[0], slice)
    return Positions(Pick.of(index[0] if one_slice else cast(tuple[int, ...], index)) or Pick())


def _number(share: float) -> str:
    return str(int(share)) if share == int(share) else repr(float(share))


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Rising numbers as runs: 0, 1, 2, 9 become `0:3` and `9`."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            first, last = numbers[start], numbers[end - 1]
            yield str(first) if first == last else f"{first}:{last + 1}"
            start = end
