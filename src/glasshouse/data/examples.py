"""What is shown to a model? `Examples`: an ordered, immutable set of prompts, images and answers, named by content.

    Examples.read("data.jsonl")                              prompts, or conversations; docs/data.md shows each form
    Examples.read("vqa.csv", prompt="question", image="img")      columns under the user's names
    Examples.read("vqa.csv?prompt=question&image=img")       the same, as on a command line
    Examples.read("folder/")                                 every image in it, or what `write` or `datasets` saved

Columns: `prompt`, `image` or `images`, `answer`, `id`, `system`, `history` (pairs of what user and assistant said
before), or a conversation in `messages` or `conversations`; any other column with a plain value becomes a tag.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch

from glasshouse.data.columns import Columns, split
from glasshouse.data.example import Example as Example
from glasshouse.data.example import Tag as Tag
from glasshouse.data.images import StoredImage
from glasshouse.data.presence import check_data
from glasshouse.data.sources import IMAGE_ENDINGS, LINES, image_files, images_of, is_images, reading
from glasshouse.data.strangers import strangers_files
from glasshouse.numerics.randomness import seeded
from glasshouse.values.errors import BadInput
from glasshouse.values.surfaces import rendered
from glasshouse.values.wording import counted

STARTS = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"BM": ".bmp", b"GIF8": ".gif"}
"""What the files of each kind begin with."""


class Examples(Sequence[Example]):
    """An ordered, immutable set. Slices and samples are Examples again."""

    __slots__ = ("__dict__", "_items", "form", "source")

    def __init__(self, items: Iterable[Example], source: str = "", form: str = "") -> None:
        self._items = tuple(
            item if item.id else Example(**{**item.__dict__, "id": str(number)}) for number, item in enumerate(items)
        )
        self.source = source
        self.form = form
        """How a file was read, in one line: its form, and the examples without an image."""

    @classmethod
    def read(cls, path: str | Path, **columns: str) -> "Examples":
        """From a file or folder; `prompt`, `image`, `answer`, `messages` name columns, `folder` where images are."""
        text, chosen = split(str(path))
        chosen = _with(chosen, columns)
        path = Path(text)
        check_data(text)
        with strangers_files(path, "cannot be read", "check the file and its permissions"):
            examples = cls._pictured(path, chosen) if is_images(path) else cls._drawn(path, chosen)
        if not examples:
            raise BadInput(f"{path}: holds no examples")
        return examples

    @classmethod
    def _pictured(cls, folder: Path, columns: Columns) -> "Examples":
        """Every image in a folder, without a prompt."""
        files = image_files(folder)
        if not files:
            raise BadInput(f"{folder}: no image in this folder; looked for {', '.join(IMAGE_ENDINGS)}")
        columns.check((), str(folder))
        bounds, form = images_of(folder, columns), "read as a folder of images without prompts: "
        items = [Example(images=(StoredImage(path=bounds.inside(file, str(folder))),), id=file.name) for file in files]
        return cls(items, str(folder), form + counted(len(items), "example"))

    @classmethod
    def _drawn(cls, path: Path, columns: Columns) -> "Examples":
        source = reading(path, columns)
        items = tuple(source.draw())
        return cls(items, str(path), source.summary())

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        return self._items[index] if isinstance(index, int) else Examples(self._items[index], self.source, self.form)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Examples) and self.digest == other.digest

    def __hash__(self) -> int:
        return int(self.digest[:15], 16)

    def __repr__(self) -> str:
        return f"Examples({len(self)} from {self.source or 'memory'})"

    def _repr_html_(self) -> str:
        return rendered("html", self)

    def write(self, folder: str | Path) -> Path:
        """A new folder with everything in it: examples.jsonl, and each image once, named by its content."""
        folder = Path(folder)
        if not self:
            raise BadInput(f"{folder}: there are no examples to write")
        with whole(folder) as aside:
            (aside / "images").mkdir(parents=True)
            with (aside / LINES).open("w", encoding="utf-8") as lines:
                lines.writelines(json.dumps(_record(item, aside)) + "\n" for item in self)
        return folder

    def sample(self, n: int, seed: int) -> "Examples":
        """`n` of them without replacement, in their own order; the same seed picks the same."""
        if not 0 < n <= len(self):
            raise BadInput(f"a sample of {n}: there are {len(self)} examples")
        chosen = torch.randperm(len(self), generator=seeded(seed))[:n].sort().values.tolist()
        return Examples((self._items[i] for i in chosen), self.source)

    def batches(self, size: int) -> Iterator["Examples"]:
        """In order, `size` at a time."""
        if size < 1:
            raise BadInput(f"a batch of {size}: at least 1 example at a time")
        return (self[start : start + size] for start in range(0, len(self), size))

    def distinct(self) -> "Examples":
        """Without repetitions of what is shown and asked: the first of each, in order."""
        first: dict[str, Example] = {}
        for item in self:
            first.setdefault(item.digest(), item)
        return Examples(first.values(), self.source)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content of every example, in order."""
        return hashlib.sha256("".join(item.digest() for item in self).encode()).hexdigest()


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Where to make a new folder: it appears under its name once all is written, or not at all."""
    if folder.exists():
        raise BadInput(f"{folder}: there is something already; choose another name or remove it")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", suffix=".part", dir=folder.parent) as aside:
            yield Path(aside) / folder.name
            (Path(aside) / folder.name).rename(folder)
    except OSError as problem:
        raise BadInput(f"{folder}: cannot be written ({problem.strerror}); choose a folder that is there") from None


def _record(example: Example, folder: Path) -> dict[str, Any]:
    """The example as a line of JSON; its images are written into the folder."""
    paths: list[str] = []
    for image in example.images:
        data = image.read()
        ending = next((ending for start, ending in STARTS.items() if data.startswith(start)), "")
        paths.append(f"images/{hashlib.sha256(data).hexdigest()}{ending}")
        if not (folder / paths[-1]).exists():
            (folder / paths[-1]).write_bytes(data)
    record = {"id": example.id, "prompt": example.prompt, "images": paths, "answer": example.answer}
    record |= {"system": example.system, "history": example.history, "tags": dict(example.tags)}
    record |= {"image_places": example.image_places} if example.image_places else {}
    return {name: value for name, value in record.items() if value is not None}


def _with(written: Columns, given: dict[str, str]) -> Columns:
    """Columns named in Python, and those written behind the file."""
    unknown = set(given) - set(asdict(written))
    if unknown:
        raise BadInput(f"{min(unknown)}: no option of Examples.read; it takes {', '.join(asdict(written))}")
    return Columns(**{**{name: value for name, value in asdict(written).items() if value}, **given})
