"""Every form that people keep data in is read as the examples that stand here by hand, and the form is named."""

import base64
import io
import json
from pathlib import Path

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
red, blue = StoredImage(data=RED), StoredImage(data=BLUE)
DATA_URL = f"data:image/png;base64,{base64.b64encode(RED).decode()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    return tmp_path


def lines(folder: Path, *records: object, name: str = "data.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return folder / name


def read(path: Path | str, **columns: str) -> tuple[list[Example], str]:
    """The examples without what `Examples` adds, and how they were read."""
    found = Examples.read(path, **columns)
    return list(found), found.form


def same(found: list[Example], *expected: Example) -> bool:
    """Equal in everything; images by content."""
    fields = ("prompt", "answer", "id", "system", "history", "tags", "image_places")
    return [[getattr(one, name) for name in fields] for one in found] == [
        [getattr(one, name) for name in fields] for one in expected
    ] and [[image.read() for image in one.images] for one in found] == [
        [image.read() for image in one.images] for one in expected
    ]


class TestColumns:
    rows = 'question,img,label,split\n"What, ""exactly""?\nTell.",red.png,3,test\nAnd this?,blue.png,,\n'
    expected = (
        Example('What, "exactly"?\nTell.', (red,), "3", "0", tags={"split": "test"}),
        Example("And this?", (blue,), None, "1"),
    )

    @pytest.mark.parametrize("name", ["vqa.csv", "vqa.tsv", "semicolons.csv", "with a mark.csv"])
    def test_of_csv(self, folder: Path, name: str):
        mark = {"vqa.tsv": "\t", "semicolons.csv": ";"}.get(name, ",")
        first, cells = self.rows.split("\n", 1)
        text = (
            first.replace(",", mark) + "\n" + cells.replace(",red", f"{mark}red").replace("png,3,", f"png{mark}3{mark}")
        )
        text = text.replace("?,blue.png,,", f"?{mark}blue.png{mark}{mark}")
        (folder / name).write_text(text, "utf-8-sig" if name == "with a mark.csv" else "utf-8")
        found, form = read(folder / name, prompt="question", image="img", answer="label")
        assert same(found, *self.expected)
        kind = {"\t": "TSV", ";": "CSV with semicolons"}.get(mark, "CSV")
        assert form == f"read as prompt from 'question', image from 'img', answer from 'label' ({kind}): 2 examples"

    @pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
    def test_of_every_table(self, folder: Path, kind: str):
        records = [
            {"question": 'What, "exactly"?\nTell.', "img": "red.png", "label": "3", "split": "test"},
            {"question": "And this?", "img": "blue.png", "label": None, "split": None},
        ]
        file = folder / f"data.{kind}"
        table = pa.Table.from_pylist(records)
        if kind == "jsonl":
            lines(folder, *records)
        elif kind == "json":
            file.write_text(json.dumps(records, indent=1))
        elif kind == "parquet":
            pq.write_table(table, file)
        else:
            with pa.ipc.new_file(file, table.schema) as out:
                out.write_table(table)
        found, _ = read(file, prompt="question", image="img", answer="label")
        assert same(found, *self.expected)

    def test_written_behind_the_file_are_those_of_python(self, folder: Path):
        file = lines(folder, {"the=question": "what?", "img": "red.png"})
        found, _ = read(f"{file}?prompt=the%3Dquestion&image=img")
        assert same(found, Example("what?", (red,), id="0"))
        assert Examples.read(file, prompt="the=question", image="img") == Examples.read(
            f"{file}?prompt=the%3Dquestion&image=img"
        )

    def test_a_file_may_have_a_question_mark_in_its_name(self, folder: Path):
        lines(folder, {"prompt": "x"}, name="what?prompt=y")
        (folder / "what?prompt=y").rename(folder / "what?prompt=y.jsonl")
        assert Examples.read(folder / "what?prompt=y.jsonl")[0].prompt == "x"

    def test_the_users_prompt_takes_the_place_of_the_usual_column(self, folder: Path):
        found, form = read(lines(folder, {"prompt": "no", "ask": "yes"}), prompt="ask")
        assert same(found, Example("yes", id="0"))
        assert form == "read as prompt from 'ask' (JSON lines): 1 example, 1 without image; not read: prompt"

    def test_images_in_another_folder(self, folder: Path):
        (folder / "data").mkdir()
        file = lines(folder / "data", {"prompt": "x", "image": "red.png"})
        with pytest.raises(
            BadInput, match=r"image red\.png is not there; paths are relative to .*, or to --image-folder"
        ):
            Examples.read(file)
        assert same(read(file, folder=str(folder))[0], Example("x", (red,), id="0"))

    def test_a_class_is_read_by_its_name(self, folder: Path):
        names = {"info": {"features": {"answer": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
        table = pa.table({"prompt": ["a", "b"], "answer": [1, 0]})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), folder / "data.parquet")
        assert [example.answer for example in Examples.read(folder / "data.parquet")] == ["dog", "cat"]

    def test_an_image_in_base64_in_a_cell(self, folder: Path):
        (folder / "bench.tsv").write_text(f"index\tquestion\timage\n7\twhat?\t{base64.b64encode(RED).decode()}\n")
        found, _ = read(folder / "bench.tsv", prompt="question")
        assert same(found, Example("what?", (red,), id="0", tags={"index": "7"}))

    def test_a_large_cell(self, folder: Path):
        (folder / "long.csv").write_text(f"prompt\n{'x' * 300_000}\n")
        assert len(Examples.read(folder / "long.csv")[0].prompt) == 300_000


class TestMessages:
    @pytest.mark.parametrize(
        "picture",
        [
            {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}},
            {"type": "image_url", "image_url": DATA_URL},
            {"type": "input_image", "image_url": DATA_URL},
            {"type": "image", "image": "red.png"},
            {"type": "image", "path": "red.png"},
            {"type": "image", "url": "red.png"},
            {"type": "image", "base64": base64.b64encode(RED).decode()},
            {"type": "image", "image": {"bytes": base64.b64encode(RED).decode()}},
        ],
        ids=lambda part: f"{part['type']} {list(part)[1]} {type(part[list(part)[1]]).__name__}",
    )
    def test_of_openai_and_transformers(self, folder: Path, picture: dict):
        messages = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "Is "}, picture, {"type": "text", "text": " red?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Quite."},
        ]
        found, form = read(lines(folder, {"id": "a", "messages": messages, "split": "train"}))
        expected = Example(
            "Sure?", (red,), "Quite.", "a", "be brief", (("Is  red?", "Yes."),), {"split": "train"}, ((0, 3),)
        )
        assert same(found, expected)
        assert form == "read as messages (JSON lines): 1 example, 1 with several turns"
        assert list(found[0].pieces(0)) == ["Is ", None, " red?"]

    def test_of_trl_with_images_in_a_column_of_parquet(self, folder: Path):
        text = {"type": "text", "text": "Which is red?"}
        content = [{"type": "image", "text": None}, text, {"type": "image", "text": None}]
        table = pa.Table.from_pylist(
            [
                {
                    "images": [{"bytes": RED, "path": "gone.png"}, {"bytes": None, "path": "blue.png"}],
                    "messages": [{"role": "user", "content": content}],
                    "answer": "the first",
                }
            ]
        )
        pq.write_table(table, folder / "data.parquet")
        found, form = read(folder / "data.parquet")
        assert same(found, Example("Which is red?", (red, blue), "the first", "0", image_places=((0, 0), (0, 13))))
        assert form == "read as messages (Parquet): 1 example, 1 with several images"

    def test_without_a_reply_there_is_no_answer(self, folder: Path):
        found, form = read(lines(folder, {"messages": [{"role": "user", "content": "hi"}]}))
        assert same(found, Example("hi", id="0"))
        assert form == "read as messages (JSON lines): 1 example, 1 without image"

    def test_under_the_users_name(self, folder: Path):
        file = lines(folder, {"prompt": "no", "chat": [{"role": "user", "content": "hi"}]})
        found, form = read(file, messages="chat")
        assert same(found, Example("hi", id="0"))
        assert form.endswith("1 without image; not read: prompt")


class TestConversations:
    llava = (
        {"id": "1", "image": "red.png", "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A square."},
            {"from": "human", "value": "Which colour?"}, {"from": "gpt", "value": "Red."}]},
        {"id": "2", "image": ["red.png", "blue.png"], "conversations": [
            {"from": "human", "value": "<image>\n<image>\nWhich is blue?"}, {"from": "gpt", "value": "The second."}]},
        {"id": "2", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    )  # fmt: skip
    expected = (
        Example("Which colour?", (red,), "Red.", "1", history=(("What is it?", "A square."),)),
        Example("Which is blue?", (red, blue), "The second.", "2"),
        Example("Hi", (), "Hello", "2"),
    )

    @pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "lists in parquet"])
    def test_of_llava(self, folder: Path, kind: str):
        if kind == "json":
            file = folder / "llava.json"
            file.write_text(json.dumps(self.llava, indent=1))
        elif kind == "jsonl":
            file = lines(folder, *self.llava)
        else:
            records = [{**record, "image": record.get("image", [])} for record in self.llava]
            for record in records:
                record["image"] = [record["image"]] if isinstance(record["image"], str) else record["image"]
                if kind == "lists in parquet":  # as `datasets` keeps a Sequence of objects
                    turns = record["conversations"]
                    record["conversations"] = {name: [turn[name] for turn in turns] for name in ("from", "value")}
            file = folder / "llava.parquet"
            pq.write_table(pa.Table.from_pylist(records), file)
        found, form = read(file)
        assert same(found, *self.expected)
        assert form.startswith("read as LLaVA conversations (")
        assert form.endswith(
            "3 examples, 1 without image, 1 with several images, 1 with several turns, "
            "1 with an id that another example has"
        )

    def test_of_sharegpt(self, folder: Path):
        turns = [
            {"from": "system", "value": "be kind"},
            {"from": "human", "value": "hi <b>"},
            {"from": "gpt", "value": "ho"},
        ]
        found, form = read(lines(folder, {"conversations": turns}))
        assert same(found, Example("hi <b>", (), "ho", "0", "be kind"))
        assert form == "read as ShareGPT conversations (JSON lines): 1 example, 1 without image"

    @pytest.mark.parametrize(
        ("text", "prompt", "offsets"),
        [
            ("<image>\nwhat?", "what?", [0]),
            ("what?\n<image>", "what?", [5]),
            ("<image>what?", "what?", [0]),
            ("\n<image>\n<image>\nwhat?", "what?", [0, 0]),
            ("what?\n<image>\n<image>\n", "what?", [5, 5]),
            ("Is <image> like\n<image>\n?", "Is  like\n\n?", [3, 9]),
            ("<image>\nIs it <image>\n", "Is it ", [0, 6]),
            ("<image>", "", [0]),
            ("<image>\n\nwhat?\n", "what?\n", [0]),
        ],
    )
    def test_an_image_stands_where_its_mark_stood(self, folder: Path, text: str, prompt: str, offsets: list[int]):
        images = ["red.png", "blue.png"][: len(offsets)]
        found, _ = read(lines(folder, {"images": images, "conversations": [{"from": "human", "value": text}]}))
        places = tuple((0, offset) for offset in offsets)
        assert same(found, Example(prompt, (red, blue)[: len(offsets)], None, "0",
                                   image_places=places if any(offsets) else ()))  # fmt: skip

    def test_images_without_a_mark_stand_in_front(self, folder: Path):
        found, _ = read(lines(folder, {"image": "red.png", "messages": [{"role": "user", "content": "what?"}]}))
        assert same(found, Example("what?", (red,), id="0"))

    def test_a_mark_in_a_reply_is_text(self, folder: Path):
        turns = [{"from": "human", "value": "how do I write it?"}, {"from": "gpt", "value": "<image>"}]
        assert same(read(lines(folder, {"conversations": turns}))[0], Example("how do I write it?", (), "<image>", "0"))


def saved(folder: Path, table: pa.Table, shards: int = 1) -> Path:
    """What `datasets` 4 writes with `save_to_disk`."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    size = -(-table.num_rows // shards)
    for i, name in enumerate(names):
        with pa.ipc.new_stream(folder / name, table.schema) as out:
            out.write_table(table.slice(i * size, size))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_format_columns": None,
             "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": "train"}  # fmt: skip
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


class TestFolders:
    table = pa.table({"prompt": ["a", "b", "c"], "image": [{"bytes": RED, "path": None}] * 2 + [None], "n": [1, 2, 3]})
    expected = (
        Example("a", (red,), id="0", tags={"n": 1}),
        Example("b", (red,), id="1", tags={"n": 2}),
        Example("c", (), id="2", tags={"n": 3}),
    )

    @pytest.mark.parametrize("shards", [1, 2])
    def test_that_datasets_saved(self, tmp_path: Path, shards: int):
        found, form = read(saved(tmp_path / "set", self.table, shards))
        assert same(found, *self.expected)
        assert form == "read as prompts and images (a saved data set): 3 examples, 1 without image"

    def test_the_only_split_is_read_and_several_are_asked_about(self, tmp_path: Path):
        saved(tmp_path / "set" / "train", self.table)
        (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
        assert same(read(tmp_path / "set")[0], *self.expected)
        (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        with pytest.raises(BadInput, match=r"set: holds the splits train, test; give one of them: .*/set/train$"):
            Examples.read(tmp_path / "set")

    @pytest.mark.parametrize("name", ["captions.csv", "metadata.csv", "metadata.jsonl"])
    def test_of_images_with_a_table(self, folder: Path, name: str):
        if name.endswith("csv"):
            (folder / name).write_text("file_name,prompt\nred.png,what?\nblue.png,and?\n")
        else:
            lines(
                folder,
                {"file_name": "red.png", "prompt": "what?"},
                {"file_name": "blue.png", "prompt": "and?"},
                name=name,
            )
        found, form = read(folder)
        assert same(found, Example("what?", (red,), id="0"), Example("and?", (blue,), id="1"))
        assert form.startswith("read as image from 'file_name' (")

    def test_of_images_with_a_file_that_is_no_table_of_them(self, folder: Path):
        (folder / "settings.json").write_text("{}")
        assert [example.id for example in Examples.read(folder)] == ["blue.png", "red.png"]
        assert Examples.read(folder).form == "read as a folder of images without prompts: 2 examples"

    def test_of_the_shards_of_a_repository(self, tmp_path: Path):
        (tmp_path / "data").mkdir()
        (tmp_path / "README.md").write_text("a card")
        for i in range(2):
            pq.write_table(self.table.slice(2 * i, 2), tmp_path / "data" / f"train-{i:05d}-of-00002.parquet")
        assert same(read(tmp_path)[0], *self.expected)
        pq.write_table(self.table, tmp_path / "data" / "test-00000-of-00001.parquet")
        with pytest.raises(BadInput, match=r"data: holds several tables \(test-.*train-.*\); give one of them$"):
            Examples.read(tmp_path)

    def test_of_a_hub_cache_whose_images_are_links(self, tmp_path: Path):
        blobs, snapshot = tmp_path / "datasets--x--y" / "blobs", tmp_path / "datasets--x--y" / "snapshots" / "abc"
        blobs.mkdir(parents=True)
        snapshot.mkdir(parents=True)
        (blobs / "b1").write_bytes(RED)
        (snapshot / "red.png").symlink_to(blobs / "b1")
        lines(blobs, {"prompt": "what?", "image": "red.png"}, name="b2")
        (snapshot / "data.jsonl").symlink_to(blobs / "b2")
        assert same(read(snapshot / "data.jsonl")[0], Example("what?", (red,), id="0"))


@pytest.mark.parametrize("name", ["lines.json", "array.jsonl", "table.bin", "indented.json", "wrapped.json"])
def test_the_kind_of_file_is_told_by_its_content(tmp_path: Path, name: str):
    record = {"prompt": "x"}
    match name:
        case "lines.json":
            lines(tmp_path, record, record, name=name)
        case "array.jsonl":
            (tmp_path / name).write_text(json.dumps([record, record]))
        case "table.bin":
            pq.write_table(pa.Table.from_pylist([record, record]), tmp_path / name)
        case "indented.json":
            (tmp_path / name).write_text(json.dumps([record, record], indent=2))
        case _:
            (tmp_path / name).write_text(json.dumps({"version": 1, "data": [record, record]}, indent=2))
    assert same(read(tmp_path / name)[0], Example("x", id="0"), Example("x", id="1"))


class TestWritten:
    conversation = Examples(
        [
            Example("Which of  and  is red?", (red, blue, red), "the first", "a", "be brief",
                    (("What is this?", "Red."), ("", "")), {"n": 1}, ((0, 0), (2, 9), (2, 14))),
            Example("plain", (blue,), id="b"),
        ]
    )  # fmt: skip

    def test_turns_and_places_of_images_are_read_as_they_were(self, tmp_path: Path):
        found = Examples.read(self.conversation.write(tmp_path / "set"))
        assert found == self.conversation
        assert same(list(found), *self.conversation)
        assert Examples.read(Examples(found).write(tmp_path / "again")).digest == self.conversation.digest

    def test_what_was_read_from_a_conversation_too(self, folder: Path):
        file = lines(folder, *TestConversations.llava)
        found = Examples.read(file)
        assert same(list(Examples.read(found.write(folder / "set"))), *TestConversations.expected)

    def test_places_are_content(self):
        one, two = (Example("a b", (red, blue), image_places=((0, 0), (0, end))) for end in (1, 2))
        assert one.digest() != two.digest() != Example("a b", (red, blue)).digest()

    def test_digests_of_older_examples_stay(self):
        """Computed before conversations could be read."""
        older = Example("what?", (StoredImage(data=b"one"),), "a", "id", "brief", (("hi", "ho"),), {"n": 1})
        assert older.digest() == OLDER_DIGEST


OLDER_DIGEST = "fbba3222f3c15ec91425041c70860a4b50098a80c40c38d57f1625a9b953a9d6"


class TestPieces:
    def test_without_places_images_stand_in_front_of_the_first_turn(self):
        example = Example("b", (red, blue), history=(("a", "x"),))
        assert [list(example.pieces(turn)) for turn in (0, 1)] == [[None, None, "a"], ["b"]]

    def test_of_text_that_was_changed_after_it_was_read(self):
        shorter = Example("ab", (red, blue, red), image_places=((0, 0), (1, 9)))
        assert list(shorter.pieces(0)) == [None, "ab", None, None]  # turn 1 was cut off, a third image has no place
        assert list(Example("ab", (), image_places=((0, 1),)).pieces(0)) == ["ab"]

    def test_places_that_run_backwards_are_refused(self, folder: Path):
        with pytest.raises(BadInput, match=r"example x: image_places .* run backwards; list images in order"):
            Example("ab", (red, blue), id="x", image_places=((0, 2), (0, 1)))
        file = lines(folder, {"prompt": "ab", "images": ["red.png"] * 2, "image_places": [[0, 2], [0, 1]]})
        with pytest.raises(BadInput, match=r"data\.jsonl:1: 'image_places' run backwards"):
            Examples.read(file)
