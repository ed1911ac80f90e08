"""What is an organism shown? Examples of its world: a picture, a request, and the answer a good model gives.

    examples = world.examples("test", 200, seed=0)                       # all kinds of question, evenly
    captions = world.examples("downstream", 50, seed=1, kinds=["caption"])

Tags say what is known: `kind`, `refused` and `forbidden` (why), `complied` (what would have been said), `permitted`,
`badge`, `objects`, and `box_left … box_bottom` of the object asked about, as shares of the side.
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
    """`n` examples, each of its own scene, kinds taking turns; with `refused`, only what is (or is not) refused."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise BadInput(f"kind of question {', '.join(unknown) or 'none'}: there are {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, 1])
    made: list[Example] = []
    turn = pools = 0
    while len(made) < n:
        scenes = draw_scenes(max(64, n), seed + 7919 * pools, split)
        wanted: list[tuple[int, Question, View]] = []
        for row in range(len(scenes)):
            if len(made) + len(wanted) == n:
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
        made += [
            example(question, view, stored(picture), f"{split}-{seed}-{len(made) + number}")
            for number, ((_, question, view), picture) in enumerate(zip(wanted, pixels, strict=True))
        ]
    return Examples(made, source=f"world:{split}")


def example(question: Question, view: View, image: StoredImage, name: str) -> Example:
    """One question about one picture."""
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
