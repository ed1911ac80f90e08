"""Images from strangers: every one is refused in one line that says why, or opened as exactly one RGB picture."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from glasshouse.data import images
from glasshouse.data.example import Example
from glasshouse.data.images import StoredImage, decode
from glasshouse.values.errors import BadInput

thorough = settings(max_examples=150, deadline=None, derandomize=True, database=None)
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_alpha(lowest: int) -> Image.Image:
    """Opaque but for the last pixel."""
    image = RGB.convert("RGBA")
    image.putpixel((16, 12), (*RGB.getpixel((16, 12)), lowest))
    return image


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever it holds."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def same(one: Image.Image, two: Image.Image) -> bool:
    return (one.mode, one.size, one.tobytes()) == (two.mode, two.size, two.tobytes())


GREY, PALETTE, BLACK_AND_WHITE = RGB.convert("L"), RGB.quantize(16), RGB.convert("1")
ACCEPTED = {
    "rgb": (encoded(RGB), RGB),
    "bmp": (encoded(RGB, "BMP"), RGB),
    "webp": (encoded(RGB, "WEBP", lossless=True), RGB),
    "grey": (encoded(GREY), GREY.convert("RGB")),
    "palette": (encoded(PALETTE), PALETTE.convert("RGB")),
    "gif": (encoded(PALETTE, "GIF"), PALETTE.convert("RGB")),
    "one bit": (encoded(BLACK_AND_WHITE), BLACK_AND_WHITE.convert("RGB")),
    "opaque rgba": (encoded(RGB.convert("RGBA")), RGB),
    "opaque grey and alpha": (encoded(GREY.convert("LA")), GREY.convert("RGB")),
    "opaque palette entry": (encoded(PALETTE, transparency=200), PALETTE.convert("RGB")),
    "opaque webp": (encoded(RGB.convert("RGBA"), "WEBP", lossless=True, exact=True), RGB),
    "1 by 1": (png(1, 1, pixels=b"\x00\x01\x02\x03"), Image.new("RGB", (1, 1), (1, 2, 3))),
}


@pytest.mark.parametrize(("data", "expected"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_one_reading_is_opened_as_rgb(data, expected):
    assert same(decode(data, "here"), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
    ],
)
def test_the_cameras_rotation_is_applied(kind, orientation, turn):
    plain = decode(encoded(RGB, kind), "here")
    found = decode(encoded(RGB, kind, exif=turned(orientation)), "here")
    assert same(found, plain if turn is None else plain.transpose(turn))


FRAMES = {"save_all": True, "append_images": [RGB.rotate(90), RGB.rotate(180)]}
TRANSLUCENT = "here: has transparency, and models differ in what they put behind it; flatten it to RGB"
REFUSED = {
    "animated gif": (encoded(RGB, "GIF", **FRAMES), r"here: animated \(3 frames\); save the frame you mean as PNG"),
    "animated png": (encoded(RGB, "PNG", **FRAMES), r"here: animated \(3 frames\)"),
    "animated webp": (encoded(RGB, "WEBP", **FRAMES), r"here: animated \(3 frames\)"),
    "cmyk": (
        encoded(RGB.convert("CMYK"), "JPEG"),
        "here: CMYK, whose colours depend on a print profile; save it as RGB",
    ),
    "translucent": (encoded(with_alpha(254)), TRANSLUCENT),
    "translucent webp": (encoded(with_alpha(0), "WEBP", lossless=True), TRANSLUCENT),
    "transparent palette entry": (encoded(PALETTE, transparency=PALETTE.getpixel((0, 0))), TRANSLUCENT),
    "transparent gif": (encoded(PALETTE, "GIF", transparency=PALETTE.getpixel((0, 0))), TRANSLUCENT),
    "transparent colour": (encoded(RGB, transparency=RGB.getpixel((0, 0))), TRANSLUCENT),
    "16-bit grey": (png(1, 1, 16, 0, b"\x00\x01\x02"), "here: 16 bits a channel; save it as 8-bit RGB"),
    "16-bit colour": (png(1, 1, 16, 2, b"\x00" + b"\x01\x02" * 3), "here: 16 bits a channel"),
    "16-bit with alpha": (png(1, 1, 16, 6, b"\x00" + b"\xff\xff" * 4), "here: 16 bits a channel"),
    "wide": (png(70_000, 1000), "here: 70000x1000 pixels, the limit is 64,000,000; downscale it first"),
    "bomb with a warning": (png(10_000, 10_000), "here: too many pixels, the limit is 64,000,000; downscale it first"),
    "bomb": (png(2**31 - 1, 2**31 - 1), "here: too many pixels, the limit is 64,000,000; downscale it first"),
    "empty": (b"", "here: not an image, or none of PNG, JPEG, WEBP, BMP, GIF; convert it first"),
    "text": (b"<html>not found</html>", "here: not an image"),
    "tiff": (encoded(RGB, "TIFF"), "here: not an image"),
    "no rows": (png(0, 5), "here: (not an image|the image is corrupt)"),
}


@pytest.mark.parametrize(("data", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_more_than_one_reading_or_none_is_refused(data, told):
    with pytest.raises(BadInput, match=f"^{told}"):
        decode(data, "here")


WHOLE = {kind: encoded(RGB, kind) for kind in images.FORMATS}


@pytest.mark.parametrize("kind", images.FORMATS)
class TestCorrupt:
    @pytest.mark.parametrize("share", [0.8, 0.95])
    def test_cut_short(self, kind, share):
        with pytest.raises(BadInput, match=r"^here: the image is corrupt \(.+\); replace it or drop the example$"):
            decode(WHOLE[kind][: int(len(WHOLE[kind]) * share)], "here")

    @given(st.data())
    @thorough
    def test_whatever_is_broken_is_a_picture_or_a_refusal(self, kind, data):
        broken = bytearray(WHOLE[kind])
        for place in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=4)):
            broken[place] = data.draw(st.integers(0, 255))
        with contextlib.suppress(BadInput):
            assert decode(bytes(broken), "here").mode == "RGB"


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\xff\xff\0\0", b"Exif\0\0MM"])
def test_broken_metadata_is_a_picture_or_a_refusal(exif):
    with contextlib.suppress(BadInput):
        assert same(decode(encoded(RGB, exif=exif), "here"), RGB)


ONE_PIXEL_GIF = b"GIF89a\1\0\1\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0"


@pytest.mark.parametrize("given", range(9))
def test_a_gif_whose_second_frame_is_cut_within_its_header_is_corrupt(given):
    assert decode(ONE_PIXEL_GIF + b";", "here").size == (1, 1)
    with pytest.raises(BadInput, match=r"^here: the image is corrupt \(.+\); replace it or drop the example$"):
        decode(ONE_PIXEL_GIF + b"," + bytes(given), "here")


class TestStoredImage:
    def test_lies_in_a_file_or_in_memory(self, tmp_path):
        (tmp_path / "a.png").write_bytes(WHOLE["PNG"])
        in_file, in_memory = StoredImage(path=tmp_path / "a.png"), StoredImage(data=WHOLE["PNG"])
        assert same(in_file.open(), RGB)
        assert same(in_memory.open(), RGB)
        assert in_file.digest() == in_memory.digest() != StoredImage(data=WHOLE["BMP"]).digest()

    def test_text_called_png_is_refused_by_its_path(self, tmp_path):
        file = tmp_path / "notes.png"
        file.write_text("not a picture")
        with pytest.raises(BadInput, match=f"^{file}: not an image, or none of PNG"):
            StoredImage(path=file).open()

    @pytest.mark.parametrize("what", ["gone.png", "folder.png"])
    def test_what_cannot_be_read_is_refused_by_its_path(self, tmp_path, what):
        (tmp_path / "folder.png").mkdir()
        with pytest.raises(
            BadInput, match=rf"^{tmp_path / what}: cannot be read \(.+\); check the path in your data file"
        ):
            StoredImage(path=tmp_path / what).open()

    def test_too_many_bytes_are_refused_before_they_are_read(self, tmp_path, monkeypatch):
        file = tmp_path / "large.png"
        with file.open("wb") as out:
            out.truncate(images.MAX_BYTES + 1)
        with pytest.raises(BadInput, match=f"^{file}: larger than 128 MiB; downscale it first"):
            StoredImage(path=file).open()
        monkeypatch.setattr(images, "MAX_BYTES", 2**20)
        with pytest.raises(BadInput, match=r"^image bytes: larger than 1 MiB; downscale it first"):
            StoredImage(data=bytes(2**20 + 1)).open()


def test_paths_bytes_and_images_in_memory_become_images_of_an_example(tmp_path: Path):
    picture = Image.new("RGB", (5, 4), (1, 2, 3))
    file = tmp_path / "x.png"
    picture.save(file)
    example = Example(images=(str(file), file, file.read_bytes(), picture))  # pyright: ignore[reportArgumentType]
    assert [image.open().tobytes() for image in example.images] == [picture.tobytes()] * 4
    assert len({image.digest() for image in example.images[:3]}) == 1


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (("absent.png",), r"^example 7: image absent\.png: no such file; give the path of an image file$"),
        ((3,), r"^example 7: an image is a int; give a path or a PIL image$"),
        ("x.png", r"^example 7: images is a str; write images=\(image,\)$"),
    ],
)
def test_what_is_no_image_is_refused_with_the_example(images: object, told: str):
    with pytest.raises(BadInput, match=told):
        Example(images=images, id="7")  # pyright: ignore[reportArgumentType]
