"""What is shown to a model? `Examples`: an ordered, immutable set of prompts, images and answers, named by content.

    Examples.read("data.jsonl")     one JSON object a line; images by path (relative to the file) or {"bytes": base64}
    Examples.read("data.parquet")   the same columns; images as paths, bytes, or the {bytes, path} of `datasets`
    Examples.read("folder/")        every image in it, in order of name, without a prompt; or what `write` made there

Columns: `prompt`, `image` or `images`, `answer`, `id`, `system`, `history` (pairs of what user and assistant said
before); any other column with a plain value becomes a tag.
"""

import base64
import binascii
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch

from glasshouse.data.images import StoredImage
from glasshouse.data.strangers import reason, strangers_files
from glasshouse.numerics.randomness import seeded
from glasshouse.values.errors import BadInput

Tag = str | int | float | bool
OWN_COLUMNS = ("id", "prompt", "image", "images", "answer", "system", "history", "tags")
LINES = "examples.jsonl"
"""What `write` calls the file of examples in its folder."""
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
STARTS = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"RIFF": ".webp", b"BM": ".bmp", b"GIF8": ".gif"}
"""What the files of each kind begin with."""


@dataclass(frozen=True)
class Example:
    """One example: image(s), a prompt, and the answer where it is known."""

    prompt: str = ""
    images: tuple[StoredImage, ...] = ()
    answer: str | None = None
    id: str = ""
    system: str = ""
    history: tuple[tuple[str, str], ...] = ()
    tags: Mapping[str, Tag] = field(default_factory=dict[str, Tag])

    def digest(self) -> str:
        """Names the content: images by their bytes, not by where they lie."""
        text = [self.prompt, self.answer, self.system, self.history, sorted(self.tags.items())]
        content = json.dumps([text, [image.digest() for image in self.images]], separators=(",", ":"))
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class Examples(Sequence[Example]):
    """An ordered, immutable set. Slices and samples are Examples again."""

    __slots__ = ("__dict__", "_items", "source")

    def __init__(self, items: Iterable[Example], source: str = "") -> None:
        self._items = tuple(
            item if item.id else Example(**{**item.__dict__, "id": str(number)}) for number, item in enumerate(items)
        )
        self.source = source

    @classmethod
    def read(cls, path: str | Path) -> "Examples":
        """From a JSONL file, a Parquet file or a folder of images."""
        path = Path(path)
        if not os.path.exists(path):  # not Path.exists, which fails on names that are too long
            raise BadInput(f"{path}: no such file or folder; --data takes a .jsonl, a .parquet or a folder of images")
        readers = {".jsonl": _jsonl, ".parquet": _parquet}
        reader = _folder if path.is_dir() else readers.get(path.suffix)
        if reader is None:
            raise BadInput(f"{path}: cannot tell what this is; --data takes a .jsonl, a .parquet or a folder of images")
        with strangers_files(path, "cannot be read", "check the file and its permissions"):
            examples = cls(reader(path), source=str(path))
        if not examples:
            raise BadInput(f"{path}: holds no examples")
        return examples

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        return self._items[index] if isinstance(index, int) else Examples(self._items[index], self.source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Examples) and self.digest == other.digest

    def __hash__(self) -> int:
        return int(self.digest[:15], 16)

    def __repr__(self) -> str:
        return f"Examples({len(self)} from {self.source or 'memory'})"

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
    return {name: value for name, value in record.items() if value is not None}


def _jsonl(path: Path) -> Iterator[Example]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise BadInput(f"{place}: this line is not JSON ({reason(problem)}); mend or remove it") from None
            if not isinstance(record, dict):
                raise BadInput(f'{place}: this line is not a JSON object; write {{"prompt": …, "image": …}}')
            yield _example(record, place, path.parent)


def _parquet(path: Path) -> Iterator[Example]:
    import pyarrow.parquet as parquet

    number = 0
    with strangers_files(path, "not a readable Parquet file", "write it again"):
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if not {"prompt", "image", "images"} & set(names):
            raise BadInput(f"{path}: needs a column 'prompt', 'image' or 'images'; it has {', '.join(names) or 'none'}")
        for batch in file.iter_batches(batch_size=256):
            for record in batch.to_pylist():
                yield _example(record, f"{path} row {number}", path.parent)
                number += 1


def _folder(path: Path) -> Iterator[Example]:
    if (path / LINES).is_file():
        return _jsonl(path / LINES)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_ENDINGS)
    if not files:
        raise BadInput(f"{path}: no image in this folder; looked for {', '.join(IMAGE_ENDINGS)}")
    return (Example(images=(StoredImage(path=file),), id=file.name) for file in files)


def _example(record: Mapping[str, Any], place: str, folder: Path) -> Example:
    entries = {name: value for name, value in record.items() if value is not None}
    if not {"prompt", "image", "images"} & set(entries):
        raise BadInput(
            f"{place}: needs 'prompt', 'image' or 'images'; it has {', '.join(map(str, entries)) or 'nothing'}"
        )
    tags = entries.get("tags", {})
    if not isinstance(tags, Mapping) or not all(isinstance(tag, Tag | None) for tag in tags.values()):
        raise BadInput(f"{place}: 'tags' must be an object of plain values")
    extra = {**{name: value for name, value in entries.items() if name not in OWN_COLUMNS}, **tags}
    if "image" in entries and "images" in entries:
        raise BadInput(f"{place}: has both 'image' and 'images'; keep one of them")
    images = entries.get("images", [entries["image"]] if "image" in entries else [])
    if not isinstance(images, list | tuple):
        raise BadInput(f"{place}: 'images' must be a list; for one image use 'image'")
    return Example(
        prompt=_text(entries, "prompt", place),
        images=tuple(_image(image, place, folder) for image in images),
        answer=_text(entries, "answer", place) if "answer" in entries else None,
        id=str(entries.get("id", "")),
        system=_text(entries, "system", place),
        history=_history(entries.get("history", []), place),
        tags={str(name): value for name, value in extra.items() if isinstance(value, str | int | float | bool)},
    )


def _text(record: Mapping[str, Any], name: str, place: str) -> str:
    value = record.get(name, "")
    if not isinstance(value, str):
        raise BadInput(f"{place}: '{name}' must be text, found {type(value).__name__}")
    return value


def _history(pairs: Any, place: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(turn, str) for turn in pair) for pair in pairs
    ):
        raise BadInput(f"{place}: 'history' must be a list of [user, assistant] pairs of text")
    return tuple((user, assistant) for user, assistant in pairs)


def _image(value: Any, place: str, folder: Path) -> StoredImage:
    if isinstance(value, Mapping):
        encoded = value.get("bytes")
        try:
            value = (
                base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else encoded or value.get("path")
            )
        except (binascii.Error, ValueError):
            raise BadInput(f"{place}: image bytes must be base64") from None
    if isinstance(value, bytes | bytearray):
        return StoredImage(data=bytes(value))
    if not isinstance(value, str):
        raise BadInput(f'{place}: an image is a path or {{"bytes": base64}}, found {type(value).__name__}')
    file = folder / value
    if not os.path.isfile(file):  # not Path.is_file, which fails on names too long, such as base64 in the wrong place
        name = value if len(value) < 200 else f"{value[:60]}… ({len(value)} characters)"
        raise BadInput(f"{place}: image {name} is not there; paths are relative to {folder}")
    return StoredImage(path=file)
