"""Examples: one content however stored and named by all of it; what cannot be read is refused by its place."""

import base64
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.values.errors import BadInput


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((2, 3, 3), number, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


RED, BLUE = png(10), png(20)
CONTENT = Examples(
    [
        Example("what?", (StoredImage(data=RED),), "a cat", system="be brief", tags={"split": "test", "level": 3}),
        Example("compare", (StoredImage(data=RED), StoredImage(data=BLUE)), history=(("hi", "hello"), ("and?", ""))),
        Example("no image"),
    ]
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "red.png").write_bytes(RED)
    (tmp_path / "blue.PNG").write_bytes(BLUE)
    return tmp_path


def jsonl(folder, *records, name="data.jsonl"):
    """Records as lines; text goes in as it is."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    file = folder / name
    file.write_text("\n".join(lines), "utf-8", errors="surrogateescape")
    return file


def parquet(folder, **columns):
    pq.write_table(pa.table(columns), folder / "data.parquet")
    return folder / "data.parquet"


def in_base64(data: bytes) -> dict[str, str]:
    return {"bytes": base64.b64encode(data).decode()}


def records(red, blue):
    """CONTENT as JSON, with the images given."""
    return [
        {
            "prompt": "what?",
            "image": red,
            "answer": "a cat",
            "system": "be brief",
            "split": "test",
            "tags": {"level": 3},
        },
        {"prompt": "compare", "images": [red, blue], "history": [["hi", "hello"], ["and?", ""]], "answer": None},
        {"prompt": "no image"},
    ]


class TestOneContent:
    @pytest.mark.parametrize(
        ("red", "blue"),
        [
            ("pictures/red.png", "blue.PNG"),
            (in_base64(RED), in_base64(BLUE)),
            ({"path": "pictures/red.png"}, {"bytes": None, "path": "blue.PNG"}),
        ],
        ids=["paths", "base64", "mappings of paths"],
    )
    def test_from_jsonl(self, folder, red, blue):
        found = Examples.read(jsonl(folder, *records(red, blue)))
        assert found == CONTENT
        assert found[1].history == (("hi", "hello"), ("and?", ""))
        assert found[0].tags == {"split": "test", "level": 3}
        assert found[2].answer is None
        assert [example.id for example in found] == ["0", "1", "2"]

    @pytest.mark.parametrize(
        ("red", "blue"),
        [
            ("pictures/red.png", "blue.PNG"),
            (RED, BLUE),
            ({"bytes": RED, "path": None}, {"bytes": BLUE, "path": "elsewhere.png"}),
            ({"bytes": None, "path": "pictures/red.png"}, {"bytes": None, "path": "blue.PNG"}),
        ],
        ids=["paths", "bytes", "structs of bytes", "structs of paths"],
    )
    def test_from_parquet(self, folder, red, blue):
        file = parquet(
            folder,
            prompt=["what?", "compare", "no image"],
            images=[[red], [red, blue], None],
            answer=["a cat", None, None],
            system=["be brief", None, None],
            history=pa.array([None, [["hi", "hello"], ["and?", ""]], None], pa.list_(pa.list_(pa.string()))),
            split=["test", None, None],
            tags=[{"level": 3}, None, None],
        )
        assert Examples.read(file) == CONTENT

    def test_from_a_parquet_of_many_batches(self, folder):
        found = Examples.read(parquet(folder, image=[RED, BLUE] * 300, id=list(range(600))))
        assert [example.id for example in found] == [str(number) for number in range(600)]
        assert found[599] == Example(images=(StoredImage(data=BLUE),), id="599")

    def test_from_a_folder_in_order_of_name(self, folder):
        (folder / "a.gif").write_bytes(RED)
        (folder / "notes.txt").write_text("no image")
        found = Examples.read(folder)
        assert [example.id for example in found] == ["a.gif", "blue.PNG"]
        assert found == Examples([Example(images=(StoredImage(data=data),)) for data in (RED, BLUE)])

    def test_a_path_may_be_text(self, folder):
        assert Examples.read(str(jsonl(folder, {"prompt": "x"}))) == Examples([Example("x")])


class TestDigest:
    def test_does_not_see_where_things_lie_or_are_called(self, folder, tmp_path_factory):
        given = records("pictures/red.png", "blue.PNG")
        here = Examples.read(jsonl(folder, *given))
        there = tmp_path_factory.mktemp("there")
        shutil.copytree(folder / "pictures", there / "pictures")
        (there / "blue.PNG").write_bytes(BLUE)
        turned = [dict(reversed(record.items())) for record in given]
        moved = Examples.read(jsonl(there, *(record | {"id": "x"} for record in turned), "", name="other.jsonl"))
        assert moved.digest == here.digest
        assert (moved == here, hash(moved) == hash(here), len({moved, here})) == (True, True, 1)

    @pytest.mark.parametrize(
        "change",
        [
            {"prompt": "what? "},
            {"images": (StoredImage(data=BLUE),)},
            {"images": ()},
            {"images": (StoredImage(data=RED), StoredImage(data=RED))},
            {"answer": None},
            {"answer": ""},
            {"system": ""},
            {"history": (("", ""),)},
            {"tags": {"split": "test"}},
            {"tags": {"split": "test", "level": "3"}},
            {"tags": {"split": "test", "level": 4}},
        ],
        ids=str,
    )
    def test_sees_all_content(self, change):
        changed = Example(**{**vars(CONTENT[0]), **change})
        assert changed.digest() != CONTENT[0].digest()
        assert Examples([changed, *CONTENT[1:]]) != CONTENT

    def test_does_not_see_the_order_of_tags(self):
        assert Example(tags={"a": 1, "b": 2}).digest() == Example(tags={"b": 2, "a": 1}).digest()

    def test_sees_order_number_and_image_bytes(self, folder):
        assert Examples([CONTENT[1], CONTENT[0], CONTENT[2]]) != CONTENT
        assert CONTENT[:2] != CONTENT
        file = jsonl(folder, {"image": "blue.PNG"})
        before = Examples.read(file).digest
        (folder / "blue.PNG").write_bytes(BLUE + b"\0")
        assert Examples.read(file).digest != before

    def test_of_text_that_is_not_unicode(self, folder):
        one, two = (Examples.read(jsonl(folder, f'{{"prompt": "\\ud80{n}"}}')) for n in (0, 1))
        assert one != two


class TestSequence:
    many = Examples([Example(str(number)) for number in range(20)], source="somewhere")

    def test_slices_are_examples_with_their_ids(self):
        part = self.many[3:9:2]
        assert isinstance(part, Examples)
        assert [(example.prompt, example.id) for example in part] == [("3", "3"), ("5", "5"), ("7", "7")]
        assert (self.many[-1].prompt, part.source) == ("19", "somewhere")

    def test_batches_are_all_of_them_in_order(self):
        assert [len(batch) for batch in self.many.batches(8)] == [8, 8, 4]
        assert [example for batch in self.many.batches(8) for example in batch] == list(self.many)

    def test_samples_are_by_seed_without_replacement_in_order(self):
        drawn = [int(example.prompt) for example in self.many.sample(8, seed=1)]
        assert drawn == sorted(set(drawn))
        assert len(drawn) == 8
        assert self.many.sample(8, seed=1) == self.many.sample(8, seed=1)
        assert len({self.many.sample(8, seed=seed).digest for seed in range(5)}) > 1
        assert self.many.sample(20, seed=3) == self.many

    @pytest.mark.parametrize("n", [0, -1, 21])
    def test_impossible_samples_are_refused(self, n):
        with pytest.raises(BadInput, match=f"^a sample of {n}: there are 20 examples$"):
            self.many.sample(n, seed=0)

    def test_shows_itself(self):
        assert (repr(self.many), repr(Examples([]))) == ("Examples(20 from somewhere)", "Examples(0 from memory)")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"prompt": "x"', r"this line is not JSON \(.+\); mend or remove it"),
        ("[" * 100_000, "this line is not JSON"),
        ('{"prompt": "\udc80"}', "this line is not JSON"),
        ('["x"]', 'this line is not a JSON object; write {"prompt": …, "image": …}'),
        ("null", "this line is not a JSON object"),
        (
            {"question": "x", "text": "y"},
            "needs 'prompt', 'image', .* or 'conversations'; it has question, text; name the column: --prompt-column",
        ),
        ({"prompt": None}, "needs 'prompt', .*; it has no columns"),
        ({"prompt": 3}, "'prompt' must be text, found int"),
        ({"prompt": "x", "answer": ["a"]}, "'answer' must be text, found list"),
        ({"prompt": "x", "system": {}}, "'system' must be text, found dict"),
        ({"images": "pictures/red.png"}, "'images' must be a list; for one image use 'image'"),
        ({"image": "blue.PNG", "images": ["blue.PNG"]}, "has both 'image' and 'images'; keep one of them"),
        ({"image": "gone.png"}, "image gone.png is not there; paths are relative to "),
        ({"image": "pictures"}, "image pictures is not there; paths are relative to "),
        ({"image": "x\0y"}, "image .* is not there"),
        ({"image": in_base64(bytes(6000))["bytes"]}, r"image A{60}… \(8000 characters\) is not there"),
        ({"image": 7}, 'an image is a path or {"bytes": base64}, found int'),
        ({"images": [None]}, "an image is a path or .*, found NoneType"),
        ({"image": {"uri": "x"}}, "an image is a path or .*, found an object with uri; write its path"),
        ({"image": {"bytes": "not base64!"}}, "image bytes must be base64"),
        ({"image": {"bytes": "ü"}}, "image bytes must be base64"),
        ({"image": {"bytes": [1, 2]}}, "an image is a path or .*, found list"),
        ({"prompt": "x", "tags": ["a"]}, "'tags' must be an object of plain values"),
        ({"prompt": "x", "tags": {"a": [1]}}, "'tags' must be an object of plain values"),
        *(
            ({"prompt": "x", "history": history}, r"'history' must be a list of \[user, assistant\] pairs of text")
            for history in (
                "hi",
                3,
                ["ab", "cd"],
                [["a"]],
                [["a", None]],
                {"ab": 1},
                [{"role": "user", "content": "a"}],
            )
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_bad_line_is_refused_by_file_and_number(folder, line, told):
    file = jsonl(folder, {"prompt": "fine"}, "", line)
    with pytest.raises(BadInput, match=f"^{file}:3: {told}"):
        Examples.read(file)


class TestRefusedFiles:
    @pytest.mark.parametrize(
        ("name", "told"),
        [
            (
                "gone.jsonl",
                "no such file or folder; --data takes a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, ",
            ),
            (
                "data.txt",
                "cannot tell what this is; --data takes a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, ",
            ),
            ("empty.jsonl", "holds no examples"),
            ("blank.jsonl", "holds no examples"),
            ("text.parquet", r"not a readable Parquet file \(.+\)"),
            ("pictures", "no image in this folder; looked for .png, .jpg, .jpeg, .webp, .bmp, .gif"),
        ],
    )
    def test_by_their_path(self, tmp_path, name, told):
        (tmp_path / "pictures").mkdir()
        for file, text in {
            "data.txt": "a,b",
            "empty.jsonl": "",
            "blank.jsonl": "\n \n",
            "text.parquet": "PAR1",
        }.items():
            (tmp_path / file).write_text(text)
        with pytest.raises(BadInput, match=f"^{tmp_path / name}: {told}"):
            Examples.read(tmp_path / name)

    def test_parquet_without_the_columns_says_what_it_has(self, tmp_path):
        file = parquet(tmp_path, question=["x"], picture=[RED])
        with pytest.raises(
            BadInput,
            match=f"^{file}: needs 'prompt', .*; it has question, picture; name the column: "
            "--prompt-column question --image-column picture$",
        ):
            Examples.read(file)

    def test_parquet_without_rows(self, tmp_path):
        with pytest.raises(BadInput, match="holds no examples"):
            Examples.read(parquet(tmp_path, prompt=pa.array([], pa.string())))

    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            ({"prompt": ["x", None]}, "row 1: needs 'prompt'"),
            ({"prompt": [1, 2]}, "row 0: 'prompt' must be text, found int"),
            ({"image": ["blue.PNG", "gone.png"]}, "row 1: image gone.png is not there"),
            (
                {"image": [RED, RED], "history": [None, [{"user": "a", "assistant": "b"}]]},
                "row 1: 'history' must be a list",
            ),
        ],
        ids=str,
    )
    def test_parquet_rows_by_their_number(self, folder, columns, told):
        file = parquet(folder, **columns)
        with pytest.raises(BadInput, match=f"^{file} {told}"):
            Examples.read(file)

    @pytest.mark.parametrize(
        "columns",
        [
            {"prompt": ["x"], "when": pa.array([2**62], pa.timestamp("us"))},
            {"prompt": pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"),
                                                             pa.py_buffer(b"\xff\xfe")])},
        ],
        ids=["a date beyond all", "text that is no UTF-8"],
    )  # fmt: skip
    def test_parquet_with_values_that_python_cannot_hold(self, tmp_path, columns):
        file = parquet(tmp_path, **columns)
        with pytest.raises(BadInput, match=rf"^{file}: not a readable Parquet file \(.+\)"):
            Examples.read(file)

    def test_a_name_too_long_for_a_file(self):
        with pytest.raises(BadInput, match=r"^x+: no such file or folder"):
            Examples.read("x" * 5000)

    def test_parquet_with_broken_pages(self, tmp_path):
        file = parquet(tmp_path, prompt=[f"{number} is a number" for number in range(2000)])
        content = bytearray(file.read_bytes())
        content[4:400] = b"\xff" * 396
        file.write_bytes(content)
        with pytest.raises(BadInput, match=rf"^{file}: not a readable Parquet file \(.+\)"):
            Examples.read(file)
