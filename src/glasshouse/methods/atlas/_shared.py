"""What do the files of this theme share? Answers as tokens, images as grids, and the pairing of a null."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.values.errors import BadInput

BOX_TAGS = ("box_left", "box_top", "box_right", "box_bottom")
"""Tags that say where in the image the answer lies, as fractions of width and height."""
NO_TOKEN = -1


def first_tokens(subject: Subject, examples: Examples) -> Int[Tensor, " examples"]:
    """The id of each answer's first token; `NO_TOKEN` where there is no answer."""
    answers = [subject.prompts.answer_tokens(example) for example in examples]
    return torch.tensor([tokens[0] if tokens else NO_TOKEN for tokens in answers])


def others(answers: Int[Tensor, " examples"], seed: int) -> Int[Tensor, " examples"]:
    """For each example the index of an example with another answer, drawn at random; `NO_TOKEN` where there is none."""
    generator, chosen = seeded(seed), list[int]()
    for answer in answers:
        candidates = ((answers != answer) & (answers != NO_TOKEN)).nonzero()[:, 0]
        pick = torch.randint(max(1, len(candidates)), (1,), generator=generator)
        chosen.append(int(candidates[pick]) if len(candidates) else NO_TOKEN)
    return torch.tensor(chosen)


def grid(tokens: int, width: int, height: int) -> tuple[int, int] | None:
    """Rows and columns of an image's tokens: the factors nearest its shape; None where no factors come near it."""
    pairs = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    side = math.isqrt(tokens)
    if side * side == tokens:
        return side, side  # most encoders see a square whatever the image's shape
    rows, columns = min(pairs, key=lambda pair: abs(math.log(pair[0] * width / (pair[1] * height))))
    return (rows, columns) if abs(math.log(rows * width / (columns * height))) < 0.25 else None


def box_of(example: Example) -> tuple[float, float, float, float] | None:
    """Where the answer lies in the image, if tags say so."""
    edges = [example.tags.get(name) for name in BOX_TAGS]
    if not all(isinstance(edge, float | int) for edge in edges):
        return None
    left, top, right, bottom = (float(edge) for edge in edges if edge is not None)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadInput(
            f"example {example.id}: box ({left}, {top}, {right}, {bottom}); "
            "give edges as fractions of the image from 0 to 1, left before right and top before bottom"
        )
    return left, top, right, bottom


def cells_in_box(box: tuple[float, float, float, float], rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """1 where the centre of a cell lies in the box."""
    left, top, right, bottom = box
    ys, xs = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
    return ((ys >= top) & (ys <= bottom)).float()[:, None] * ((xs >= left) & (xs <= right)).float()


def as_text(subject: Subject, token: int) -> str:
    """A token as text."""
    return str(subject.prompts.tokenizer.decode([token]))
