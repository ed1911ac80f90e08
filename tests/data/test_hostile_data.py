"""Data of a stranger: whatever a file holds, it is examples or one line, in bounded memory, and from its own folder."""

import base64
import contextlib
import io
import json
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from glasshouse.data import image_values, records
from glasshouse.data.examples import Example, Examples
from glasshouse.data.pairs import Pairs
from glasshouse.values.errors import BadInput

thorough = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def png(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(out, "PNG")
    return out.getvalue()


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A small file that promises more pixels than anyone wants to decode."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def lines(folder: Path, *values: object, name: str = "d.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(value) + "\n" for value in values))
    return folder / name


def in_a_message(image: object) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "x"}]}]
    }


class TestImages:
    encoded = base64.b64encode(bomb()).decode()

    @pytest.mark.parametrize(
        "record",
        [
            {"prompt": "x", "image": {"bytes": encoded}},
            {"prompt": "x", "image": f"data:image/png;base64,{encoded}"},
            {"prompt": "x", "image": encoded},
            in_a_message(f"data:image/png;base64,{encoded}"),
            {"prompt": "x", "image": {"image_url": {"url": f"data:image/png;base64,{encoded}"}}},
        ],
        ids=["bytes", "data URL", "bare base64", "message", "nested"],
    )
    def test_a_bomb_is_refused_before_it_is_decoded(self, tmp_path: Path, record: dict):
        (example,) = Examples.read(lines(tmp_path, record))
        with pytest.raises(
            BadInput, match=r"^image bytes: too many pixels, the limit is 64,000,000; downscale it first$"
        ):
            example.images[0].open()

    @pytest.mark.parametrize("kind", ["parquet", "arrow"])
    def test_a_bomb_in_a_table(self, tmp_path: Path, kind: str):
        table = pa.table({"prompt": ["x"], "image": [{"bytes": bomb(), "path": None}]})
        if kind == "parquet":
            pq.write_table(table, tmp_path / "d.parquet")
        else:
            with pa.ipc.new_stream(tmp_path / "d.arrow", table.schema) as out:
                out.write_table(table)
        (example,) = Examples.read(tmp_path / f"d.{kind}")
        with pytest.raises(BadInput, match="too many pixels"):
            example.images[0].open()

    @pytest.mark.parametrize("wrapped", [False, True], ids=["bytes", "data URL"])
    def test_too_many_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrapped: bool):
        monkeypatch.setattr(image_values, "MAX_BYTES", 2**20)
        encoded = base64.b64encode(bytes(2**20 + 1)).decode()
        image = f"data:image/png;base64,{encoded}" if wrapped else {"bytes": encoded}
        with pytest.raises(BadInput, match=r"d\.jsonl:1: image bytes larger than 1 MiB; downscale it first$"):
            Examples.read(lines(tmp_path, {"prompt": "x", "image": image}))

    @pytest.mark.parametrize(
        "image",
        ["data:image/png,x", "data:image/png;base64,!!!", "data:", "DATA:text/plain;base64,%%", {"base64": "é"}],
    )
    def test_what_is_no_base64(self, tmp_path: Path, image: object):
        with pytest.raises(BadInput, match=r"d\.jsonl:1: (a data: URL that is not base64|image bytes must be base64)"):
            Examples.read(lines(tmp_path, {"prompt": "x", "image": image}))

    def test_a_mapping_within_a_mapping_without_end(self, tmp_path: Path):
        deep = '{"image":' * 400 + '"a"' + "}" * 400
        (tmp_path / "d.jsonl").write_text(f'{{"prompt": "x", "image": {deep}}}')
        with pytest.raises(BadInput, match=r"d\.jsonl"):
            Examples.read(tmp_path / "d.jsonl")


class TestFoldersAreNotLeft:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder of data beside a private picture."""
        (tmp_path / "private").mkdir()
        (tmp_path / "private" / "me.png").write_bytes(png())
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "link.png").symlink_to(tmp_path / "private" / "me.png")
        (tmp_path / "data" / "linked").symlink_to(tmp_path / "private")
        (tmp_path / "data-private").mkdir()
        (tmp_path / "data-private" / "me.png").write_bytes(png())
        return tmp_path / "data"

    @pytest.mark.parametrize(
        "path",
        ["../private/me.png", "x/../../private/me.png", "link.png", "linked/me.png", "../data-private/me.png", "/"],
    )
    @pytest.mark.parametrize("form", ["image", "struct", "message", "csv", "parquet"])
    def test_by_a_path_or_a_link(self, folder: Path, path: str, form: str):
        (folder / "x").mkdir()
        path = str(folder.parent / "private" / "me.png") if path == "/" else path
        match form:
            case "csv":
                file = folder / "d.csv"
                file.write_text(f"prompt,image\nx,{path}\n")
            case "parquet":
                file = folder / "d.parquet"
                pq.write_table(pa.table({"prompt": ["x"], "image": [{"bytes": None, "path": path}]}), file)
            case _:
                record = {"image": {"prompt": "x", "image": path}, "struct": {"prompt": "x", "image": {"path": path}},
                          "message": in_a_message(path)}[form]  # fmt: skip
                file = lines(folder, record)
        with pytest.raises(
            BadInput, match=r"leads out of .*/data; move it there, or name a folder that holds all images"
        ):
            Examples.read(file)

    def test_nor_by_a_folder_of_images(self, folder: Path):
        with pytest.raises(BadInput, match=r"link\.png leads out of"):
            Examples.read(folder)

    def test_nor_by_a_saved_set(self, tmp_path: Path):
        (tmp_path / "set").mkdir()
        with pa.ipc.new_stream(tmp_path / "private.arrow", pa.schema([("prompt", pa.string())])) as out:
            out.write_table(pa.table({"prompt": ["secret"]}))
        (tmp_path / "set" / "state.json").write_text('{"_data_files": [{"filename": "../private.arrow"}]}')
        with pytest.raises(BadInput, match=r"state\.json: file .*private\.arrow leads out of"):
            Examples.read(tmp_path / "set")

    @pytest.mark.parametrize("split", ["../private", "..", "", "a/b"])
    def test_nor_by_a_split(self, tmp_path: Path, split: str):
        (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
        with pytest.raises(BadInput, match=r"holds the splits .*; give one of them"):
            Examples.read(tmp_path)

    def test_the_user_may_allow_it(self, folder: Path):
        file = lines(folder, {"prompt": "x", "image": str(folder / "link.png")})
        assert Examples.read(file, folder=str(folder.parent))[0].images[0].read() == png()


class TestText:
    def test_a_line_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(records, "MAX_LINE", 2**20)
        file = tmp_path / "d.jsonl"
        file.write_text('{"prompt": "x"}\n{"prompt": "' + "x" * 2**20 + '"}\n')
        with pytest.raises(BadInput, match=r"^.*d\.jsonl:2: a line longer than 1 MiB; write one object a line"):
            Examples.read(file)

    def test_a_document_too_large_for_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(records, "MAX_DOCUMENT", 2**30)
        with (tmp_path / "d.json").open("wb") as file:
            file.write(b"[")
            file.truncate(2**30 + 1)
        with pytest.raises(BadInput, match=r"d\.json: larger than 1 GiB; write it as JSON lines"):
            Examples.read(tmp_path / "d.json")

    @pytest.mark.parametrize(
        "shape", ["{}", "[{}]", '{{"messages": {}}}', '[{{"messages": {}}}]', '{{"prompt": "x", "tags": {}}}']
    )
    def test_deep_nesting(self, tmp_path: Path, shape: str):
        (tmp_path / "d.json").write_text(shape.format("[" * 100_000 + "]" * 100_000))
        with pytest.raises(BadInput, match=r"is not JSON \(it is nested too deeply\)"):
            Examples.read(tmp_path / "d.json")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 7, True, ["x"], {"a": 1}, {}])
    @pytest.mark.parametrize("column", ["prompt", "answer", "system"])
    def test_text_that_is_none(self, tmp_path: Path, column: str, value: object):
        with pytest.raises(
            BadInput, match=rf"d\.jsonl:1: '{column}' must be text, found {type(value).__name__}; write "
        ):
            Examples.read(lines(tmp_path, {"prompt": "x", column: value}))

    def test_numbers_that_are_none_stay_tags(self, tmp_path: Path):
        (example,) = Examples.read(lines(tmp_path, {"prompt": "x", "score": float("nan")}))
        assert example.tags["score"] != example.tags["score"]

    def test_what_no_example_takes_is_named(self, tmp_path: Path):
        record = {"prompt": "x", "boxes": [1], "raw": {"a": 1}, "split": "test", "gone": None, "conversation": None}
        assert Examples.read(lines(tmp_path, record)).form.endswith("; not read: boxes, raw")

    def test_names_of_columns_stay_short(self, tmp_path: Path):
        with pytest.raises(BadInput) as refused:
            Examples.read(lines(tmp_path, {"x" * 10**6 + str(i): 1 for i in range(100)}))
        assert len(str(refused.value)) < 3000


class TestIds:
    def test_that_repeat_are_counted(self, tmp_path: Path):
        found = Examples.read(lines(tmp_path, *({"id": "a", "prompt": str(i)} for i in range(3))))
        assert [example.id for example in found] == ["a"] * 3
        assert found.form.endswith("2 with ids that another example has")

    def test_of_twins_must_not(self):
        clean = Examples([Example("x", id="a"), Example("y", id="a"), Example("z", id="b")], "clean.jsonl")
        twin = {"twin": "a", "target": "t", "target_match": "equals"}
        with pytest.raises(BadInput, match=r"^clean\.jsonl: several clean examples have the id 'a', which a triggered"):
            Pairs(clean, Examples([Example("w", tags=twin)]))
        assert len(Pairs(clean, Examples([Example("w", tags={**twin, "twin": "b"})]))) == 1

    @pytest.mark.parametrize("value", [["a"], {"a": 1}])
    def test_that_are_no_ids(self, tmp_path: Path, value: object):
        with pytest.raises(BadInput, match=r"d\.jsonl:1: 'id' is (list|dict); write text or a number"):
            Examples.read(lines(tmp_path, {"id": value, "prompt": "x"}))


class TestBroken:
    """Whatever bytes a file has: examples, or one line."""

    table = pa.table({"prompt": ["a", "b" * 40], "image": [{"bytes": png(), "path": None}] * 2, "n": [1, 2]})

    def whole(self, kind: str) -> bytes:
        out = io.BytesIO()
        if kind == "parquet":
            pq.write_table(self.table, out)
        else:
            with (pa.ipc.new_file if kind == "file.arrow" else pa.ipc.new_stream)(out, self.table.schema) as writer:
                writer.write_table(self.table)
        return out.getvalue()

    @given(st.data())
    @thorough
    @pytest.mark.parametrize("kind", ["parquet", "file.arrow", "stream.arrow"])
    def test_broken_tables_are_read_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
    ):
        content = bytearray(self.whole(kind))
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
            content[place] = data.draw(st.integers(0, 255))
        cut = data.draw(st.sampled_from([len(content), len(content), len(content) // 2]))
        file = tmp_path_factory.getbasetemp() / f"broken.{kind}"
        file.write_bytes(content[:cut])
        with contextlib.suppress(BadInput):
            images = [image.open() for example in Examples.read(file) for image in example.images]
            assert all(image.mode == "RGB" for image in images)

    words = st.sampled_from(["x", "", "<image>", "user", "text", "image"])
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text", "image", "image_url", "url", "bytes"]),
            inner, max_size=3),
        max_leaves=8,
    )  # fmt: skip
    names = st.sampled_from(
        [
            "prompt",
            "image",
            "images",
            "answer",
            "id",
            "system",
            "history",
            "tags",
            "messages",
            "conversations",
            "image_places",
        ]
    )

    @given(st.lists(st.dictionaries(names, anything, max_size=4), max_size=3))
    @thorough
    def test_any_records_are_read_or_refused(self, tmp_path_factory: pytest.TempPathFactory, values: list[dict]):
        file = lines(tmp_path_factory.getbasetemp(), *values, name="broken.jsonl")
        with contextlib.suppress(BadInput):
            assert Examples.read(file).digest

    @given(st.binary(max_size=60))
    @thorough
    @pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl"])
    def test_broken_texts_are_read_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, ending: str, content: bytes
    ):
        file = tmp_path_factory.getbasetemp() / f"broken.{ending}"
        file.write_bytes(b"prompt,image\n" + content if ending == "csv" else content)
        with contextlib.suppress(BadInput):
            assert Examples.read(file).digest
