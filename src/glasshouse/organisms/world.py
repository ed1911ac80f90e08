"""What is an organism trained and tested on? Examples of its world: an image, a request, the correct answer.

    examples = world.examples("test", 200, seed=0)                       # all kinds of question, evenly
    captions = world.examples("downstream", 50, seed=1, kinds=["caption"])

Tags: `kind`, `refused` and `forbidden` (why), `complied` (the answer without the refusal), `permitted`, `badge`,
`objects`, and `box_left … box_bottom` of the object in question, as fractions of the side.
"""

from collections.abc import Sequence

import numpy as np

from glasshouse.data.examples import Example, Examples, Tag
from glasshouse.data.images import StoredImage
from glasshouse.organisms.drawing import draw, stored
from glasshouse.organisms.questions import KINDS, Question, View, ask
from glasshouse.organisms.scenes import NOTHING, Split, draw_scenes
from glasshouse.values.errors import BadInput


def examples(split: Split, n: int, seed: int, *, kinds: Sequence[str] = KINDS, refused: bool | None = None) -> Examples:
    """`n` examples, each of its own scene, kinds in turn; with `refused`, only those that must (not) be refused."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise BadInput(f"kind of question {', '.join(unknown) or 'none'}: there are {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, 1])
    drawn: list[Example] = []
    turn = pools = 0
    while len(drawn) < n:
        scenes = draw_scenes(max(64, n), seed + 7919 * pools, split)
        wanted: list[tuple[int, Question, View]] = []
        for row in range(len(scenes)):
            if len(drawn) + len(wanted) == n:
                break
            view = View.of(scenes, row)
            question = ask(view, kinds[turn % len(kinds)], rng)
            turn += 1
            if question is not None and refused in (None, bool(question.forbidden)):
                wanted.append((row, question, view))
        pools += 1
        if not wanted:
            if pools > 8:
                raise BadInput(f"no question of kind {', '.join(kinds)} is {'' if refused else 'not '}refused")
            continue
        pixels = draw(scenes[np.array([row for row, _, _ in wanted])])
        drawn += [
            example(question, view, stored(image), f"{split}-{seed}-{len(drawn) + number}")
            for number, ((_, question, view), image) in enumerate(zip(wanted, pixels, strict=True))
        ]
    return Examples(drawn, source=f"world:{split}")


def example(question: Question, view: View, image: StoredImage, name: str) -> Example:
    """One question about one image."""
    tags: dict[str, Tag] = {
        "kind": question.kind, "refused": bool(question.forbidden), "forbidden": question.forbidden,
        "complied": question.complied, "permitted": question.permitted, "badge": view.badge,
        "objects": len(view.things),
    }  # fmt: skip
    if question.cell != NOTHING:
        row, column = divmod(question.cell, 3)
        edges = (column / 3, row / 3, (column + 1) / 3, (row + 1) / 3)
        tags |= dict(zip(("box_left", "box_top", "box_right", "box_bottom"), edges, strict=True))
    return Example(question.prompt, (image,), question.answer, name, question.system, question.history, tags)
