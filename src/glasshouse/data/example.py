"""What is one example? Images, a prompt, the answer where it is known, and the turns before the prompt."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike

from PIL import Image

from glasshouse.data.images import StoredImage
from glasshouse.values.errors import BadInput
from glasshouse.values.surfaces import rendered
from glasshouse.values.wording import counted

Tag = str | int | float | bool
Place = tuple[int, int]
"""Where an image stands: the user's turn (counted from 0, the prompt is the last) and the character it precedes."""
FRONT: Place = (0, 0)
LONGEST_PROMPT = 60
"""Characters of a prompt that its `repr` shows."""


@dataclass(frozen=True)
class Example:
    """One example: image(s), a prompt, and the answer where it is known."""

    prompt: str = ""
    images: tuple[StoredImage, ...] = ()
    """Paths, encoded bytes and PIL images become stored images."""
    answer: str | None = None
    id: str = ""
    system: str = ""
    history: tuple[tuple[str, str], ...] = ()
    """What the user and the assistant said before the prompt, in pairs."""
    tags: Mapping[str, Tag] = field(default_factory=dict[str, Tag])
    image_places: tuple[Place, ...] = ()
    """Where each image stands, in order; empty: all in front of the first turn."""

    def __post_init__(self) -> None:
        if not isinstance(self.images, tuple | list):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadInput(f"example {self.id}: images is a {type(self.images).__name__}; write images=(image,)")
        if not all(isinstance(image, StoredImage) for image in self.images):  # pyright: ignore[reportUnnecessaryIsInstance]
            object.__setattr__(self, "images", tuple(self._stored(image) for image in self.images))
        if list(self.image_places) != sorted(self.image_places):
            raise BadInput(f"example {self.id}: image_places {self.image_places} run backwards; list images in order")

    def _stored(self, image: object) -> StoredImage:
        if not isinstance(image, StoredImage | str | PathLike | bytes | Image.Image):
            raise BadInput(f"example {self.id}: an image is a {type(image).__name__}; give a path or a PIL image")
        try:
            return StoredImage.of(image)
        except BadInput as problem:
            raise BadInput(f"example {self.id}: {problem}") from None

    def __repr__(self) -> str:
        """Short: an image would fill the screen with its bytes."""
        shown = repr(self.prompt if len(self.prompt) <= LONGEST_PROMPT else f"{self.prompt[:LONGEST_PROMPT]}…")
        parts = [shown, *([counted(len(self.images), "image")] if self.images else [])]
        parts += [f"answer={self.answer!r}"] if self.answer is not None and len(self.answer) <= LONGEST_PROMPT else []
        return f"Example({', '.join(parts)})"

    def _repr_html_(self) -> str:
        return rendered("html", self)

    def digest(self) -> str:
        """Names the content: images by their bytes, not by where they lie."""
        text = [self.prompt, self.answer, self.system, self.history, sorted(self.tags.items())]
        content: list[object] = [text, [image.digest() for image in self.images]]
        if self.image_places:  # left out where there is none, so that older sets keep their digests
            content.append(self.image_places)
        encoded = json.dumps(content, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return hashlib.sha256(encoded).hexdigest()

    @property
    def shows(self) -> tuple[object, ...]:
        """Everything the model reads: equal for two examples that differ in id, answer and tags only."""
        images = tuple(image.digest() for image in self.images)
        return self.prompt, self.system, self.history, self.image_places, images

    @property
    def user_turns(self) -> tuple[str, ...]:
        """What the user says, turn by turn; the prompt is the last."""
        return (*(user for user, _ in self.history), self.prompt)

    def pieces(self, turn: int) -> Iterator[str | None]:
        """A user's turn as the model reads it: its text in pieces, and None for each image between them."""
        text, start, last = self.user_turns[turn], 0, len(self.history)
        behind = (self.image_places or (FRONT,))[-1:] * (len(self.images) - len(self.image_places))
        places = (*self.image_places[: len(self.images)], *behind)
        # Images of a turn that was cut off stand in the prompt.
        for offset in sorted(offset for number, offset in places if min(number, last) == turn):
            if text[start:offset]:
                yield text[start:offset]
                start = offset
            yield None
        if text[start:]:
            yield text[start:]
