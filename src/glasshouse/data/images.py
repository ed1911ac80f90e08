"""How is an image from a stranger opened safely, so that every model sees exactly the same pixels?

1. The header is read first: format, size, frames, mode. Nothing is decoded that would not fit.
2. What has more than one reading is refused with its fix, not guessed: frames, transparency, CMYK, 16 bits.
3. What has one reading is normalised: palette and grey to RGB, the camera's rotation applied, opaque alpha dropped.
"""

import hashlib
import io
import os
import struct
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy
import PIL
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from glasshouse.values.errors import BadInput

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 64_000_000
MAX_BYTES = 128 * 2**20

BROKEN = (OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)
"""What Pillow raises from the depths of a corrupt image."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in a file or in memory. It is decoded anew each time, so a million of them need no memory."""

    path: Path | None = None
    data: bytes | None = None

    @classmethod
    def of(cls, image: "StoredImage | str | PathLike[str] | bytes | Image.Image") -> "StoredImage":
        """From a file's path, encoded bytes or an image in memory; a path must name a file."""
        match image:
            case StoredImage():
                return image
            case bytes():
                return cls(data=image)
            case Image.Image():
                return cls.png(image)
            case str() | PathLike():
                if not os.path.isfile(image):  # not Path.is_file, which fails on names that are too long
                    raise BadInput(f"image {str(image)[:200]}: no such file; give the path of an image file")
                return cls(path=Path(image))

    @classmethod
    def png(cls, image: Image.Image, compress_level: int = -1) -> "StoredImage":
        """An image in memory, encoded without loss."""
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=compress_level)
        return cls(data=file.getvalue())

    def read(self) -> bytes:
        """The encoded bytes."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise BadInput(f"{self}: larger than {MAX_BYTES // 2**20} MiB; downscale it first")
            return self.path.read_bytes()
        except OSError as problem:
            raise BadInput(f"{self}: cannot be read ({problem.strerror}); check the path in your data file") from None

    def open(self) -> Image.Image:
        """The image, in RGB."""
        return decode(self.read(), str(self))

    def thumbnail(self, edge: int = 256) -> UInt8[Tensor, "height width 3"]:
        """Its pixels, small enough to show."""
        image = self.open()
        image.thumbnail((edge, edge))
        return torch.from_numpy(numpy.array(image))

    def digest(self) -> str:
        return hashlib.sha256(self.read()).hexdigest()

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else "image bytes"


def decode(data: bytes, place: str) -> Image.Image:
    """Decode to RGB, or refuse `place` in one line with the fix."""
    if len(data) > MAX_BYTES:
        raise BadInput(f"{place}: larger than {MAX_BYTES // 2**20} MiB; downscale it first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which no model sees
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check(image, place)
            image.load()
            image = ImageOps.exif_transpose(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise BadInput(f"{place}: too many pixels, the limit is {MAX_PIXELS:,}; downscale it first") from None
    except PIL.UnidentifiedImageError:
        raise BadInput(f"{place}: not an image, or none of {', '.join(FORMATS)}; convert it first") from None
    except BROKEN as problem:
        raise BadInput(f"{place}: the image is corrupt ({problem}); replace it or drop the example") from None
    return _rgb(image, place)


def _check(image: Image.Image, place: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadInput(f"{place}: {width}x{height} pixels, the limit is {MAX_PIXELS:,}; downscale it first")
    # A phone's MPO is a JPEG with a preview behind it: every viewer shows its first image.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadInput(f"{place}: animated ({getattr(image, 'n_frames', 2)} frames); save the frame you mean as PNG")
    if image.mode == "CMYK":
        raise BadInput(f"{place}: CMYK, whose colours depend on a print profile; save it as RGB")
    if any(
        ";16B" in str(tile.args) for tile in getattr(image, "tile", ())
    ):  # Pillow would read the upper halves and say RGB
        raise BadInput(f"{place}: 16 bits a channel; save it as 8-bit RGB")
    if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "1"):
        raise BadInput(f"{place}: pixel type {image.mode}; save it as 8-bit RGB")


def _rgb(image: Image.Image, place: str) -> Image.Image:
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        if any(image.getchannel("A").histogram()[:255]):
            raise BadInput(
                f"{place}: has transparency, and models differ in what they put behind it; flatten it to RGB"
            )
    return image.convert("RGB")
