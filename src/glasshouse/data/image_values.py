"""Which image does a cell of a data file name? A path, bytes, base64, a data: URL, or a mapping with one of them.

1. A path is relative to the folder of the data file, or to --image-folder, and must stay inside it, also behind links:
   a stranger's file must not pull a private picture into a report.
2. Bytes are kept encoded and are decoded by `images.decode` under its limits, wherever they come from.
3. The network is never asked.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glasshouse.data.images import MAX_BYTES, StoredImage
from glasshouse.values.errors import BadInput

ENCODED_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "Qk")
"""What base64 of the formats we read begins with."""
SHORTEST_ENCODED = 64
"""Characters: no image is shorter, most paths are."""
KEYS = ("bytes", "path", "url", "base64", "data", "image", "image_url")
"""Keys of a mapping that name an image, in the forms of `datasets`, OpenAI and transformers."""


@dataclass(frozen=True)
class ImageFolder:
    """Where image paths of one data file may lead."""

    folder: Path

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The folder, and for a snapshot in a hub cache the blobs that its links lead to."""
        real = os.path.realpath(self.folder)
        cache, snapshots, _ = real.rpartition("/snapshots/")
        return (real, f"{cache}/blobs") if snapshots else (real,)

    def inside(self, path: Path, place: str, what: str = "image") -> Path:
        """The path, if it stays in the folder, also behind links."""
        real = os.path.realpath(path)
        if not any(os.path.commonpath((real, root)) == root for root in self.roots):
            raise BadInput(
                f"{place}: {what} {_short(str(path))} leads out of {self.folder}; move it there, or name a folder that "
                "holds all images: --image-folder FOLDER"
            )
        return path

    def image(self, value: Any, place: str) -> StoredImage:
        """The image that a value names, or one line that says what is wrong with it."""
        if isinstance(value, Mapping):
            return self._mapped(value, place)
        if isinstance(value, bytes | bytearray | memoryview):
            return StoredImage(data=_limited(bytes(value), place))
        if not isinstance(value, str):
            raise BadInput(f'{place}: an image is a path or {{"bytes": base64}}, found {type(value).__name__}')
        return self._written(value, place)

    def _mapped(self, value: Mapping[str, Any], place: str) -> StoredImage:
        entries = {name: entry for name in KEYS if (entry := value.get(name)) is not None}
        if not entries:
            raise BadInput(
                f'{place}: an image is a path or {{"bytes": base64}}, found an object with '
                f"{', '.join(map(str, value)) or 'nothing'}; write its path"
            )
        name, entry = next(iter(entries.items()))  # bytes before path: `datasets` keeps the old path beside the bytes
        if name in ("bytes", "base64", "data") and isinstance(entry, str) and not entry.startswith("data:"):
            return StoredImage(data=_decoded(entry, place))
        if isinstance(entry, Mapping) and name not in ("image", "image_url"):
            raise BadInput(f"{place}: an image's {name!r} is an object; write its path or base64")
        return self.image(entry, place)

    def _written(self, value: str, place: str) -> StoredImage:
        if not value:
            raise BadInput(f"{place}: an empty path of an image; leave the image out where there is none")
        if value[:5].lower() == "data:":
            header, comma, encoded = value.partition(",")
            if not comma or not header.lower().endswith(";base64"):
                raise BadInput(f"{place}: a data: URL that is not base64; write data:image/png;base64,…")
            return StoredImage(data=_decoded(encoded, place))
        scheme, colon, _ = value[:20].partition("://")
        if colon:
            raise BadInput(
                f"{place}: image {_short(value)} is an address; glasshouse fetches no data, so "
                f"{'write its path' if scheme.lower() == 'file' else 'download it and write its path'}"
            )
        path = self.folder / value
        if not os.path.isfile(path):  # not Path.is_file, which fails on names too long, such as base64
            if len(value) >= SHORTEST_ENCODED and value.startswith(ENCODED_STARTS):
                return StoredImage(data=_decoded(value, place))
            raise BadInput(
                f"{place}: image {_short(value)} is not there; paths are relative to {self.folder}, "
                "or to --image-folder FOLDER"
            )
        return StoredImage(path=self.inside(path, place))


def _short(value: str) -> str:
    return value if len(value) < 200 else f"{value[:60]}… ({len(value)} characters)"


def _limited(data: bytes, place: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise BadInput(f"{place}: image bytes larger than {MAX_BYTES // 2**20} MiB; downscale it first")
    return data


def _decoded(encoded: str, place: str) -> bytes:
    if len(encoded) > MAX_BYTES * 2:
        raise BadInput(f"{place}: image bytes larger than {MAX_BYTES // 2**20} MiB; downscale it first")
    try:
        return _limited(base64.b64decode("".join(encoded.split()), validate=True), place)
    except (binascii.Error, ValueError):
        raise BadInput(f"{place}: image bytes must be base64; encode the file again, or write its path") from None
