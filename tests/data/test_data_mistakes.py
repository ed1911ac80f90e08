"""Typical mistakes with data: one line with the place and the fix, status 2, nothing changed."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from glasshouse.data.columns import resolved
from glasshouse.data.examples import Examples
from glasshouse.engine.kinds import PairsKind

Prepare = Callable[[Path], object]


def text(name: str, content: str, encoding: str = "utf-8") -> Prepare:
    return lambda folder: (folder / name).write_text(content, encoding)


def raw(name: str, content: bytes) -> Prepare:
    return lambda folder: (folder / name).write_bytes(content)


def rows(*records: object) -> Prepare:
    return text("d.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def turns(*messages: object, **record: object) -> Prepare:
    return rows({"messages": messages, **record})


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def saved(folder: Path) -> None:
    (folder / "set").mkdir()
    (folder / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')


def tables(folder: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("prompt\nx\n")


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
CSV, LINES = "d.csv", "d.jsonl"
MISTAKES: dict[str, tuple[Prepare, str, str]] = {
    "columns of another benchmark": (
        text(CSV, "question,img_path,label\nx,a.png,1\n"), CSV,
        "d.csv: needs 'prompt', 'image', 'images', 'messages' or 'conversations'; it has question, img_path, label; "
        "name the column: --prompt-column question --image-column img_path"),
    "a column misspelt": (
        text(CSV, "question,img\nx,a.png\n"), f"{CSV}?prompt=quesion",
        "d.csv: no column 'quesion'; it has question, img; did you mean --prompt-column question?"),
    "a column that is nowhere": (
        rows({"prompt": "x"}), f"{LINES}?image=photo",
        "d.jsonl: no column 'photo'; it has prompt; set --image-column to one of them"),
    "a prompt and a conversation": (
        rows({"prompt": "x", "messages": [user("y")]}), LINES,
        "d.jsonl:1: has both 'prompt' and 'messages'; choose one: --prompt-column prompt or --messages-column messages"),
    "two forms in a file": (
        rows({"prompt": "x"}, {"messages": [user("y")]}), LINES,
        "d.jsonl:2: holds a conversation in 'messages', examples before it a prompt; split the file into two "
        "of one form"),
    "an image column under another name": (
        rows({"prompt": "x", "img": "a.png"}), LINES,
        "d.jsonl:1: no column 'image', but 'img' looks like it; read it with --image-column img, or rename it"),
    "an empty prompt": (
        rows({"prompt": " ", "image": "red.png"}), LINES,
        "d.jsonl:1: the prompt ('prompt') is empty; write one, or leave the column out for images alone"),
    "a hole in a column of prompts": (
        text(CSV, "prompt,image\nx,red.png\n,red.png\n"), CSV, "d.csv:3: the prompt ('prompt') is empty; write one, "
        "or leave the column out for images alone"),
    "NaN for a prompt": (
        text(LINES, '{"prompt": NaN}'), LINES,
        "d.jsonl:1: 'prompt' must be text, found float; write text (NaN and null are no text)"),
    "a number for an answer": (
        rows({"prompt": "x", "answer": 3}), LINES, "d.jsonl:1: 'answer' must be text, found int; write it in quotes"),
    "several answers": (
        rows({"prompt": "x", "answer": ["a", "b"]}), LINES,
        "d.jsonl:1: 'answer' must be text, found list; write one text, or a conversation into 'messages'"),
    "messages in the column of prompts": (
        rows({"prompt": [user("x")]}), LINES,
        "d.jsonl:1: 'prompt' must be text, found list; write one text, or a conversation into 'messages'"),
    "an image on the network": (
        rows({"prompt": "x", "image": "https://example.org/cat.png"}), LINES,
        "d.jsonl:1: image https://example.org/cat.png is an address; glasshouse fetches no data, so download it and "
        "write its path"),
    "an image on the network in a message": (
        turns(user([PICTURE])), LINES, "d.jsonl:1 turn 0: image https://example.org/cat.png is an address; "
        "glasshouse fetches no data, so download it and write its path"),
    "a file:// address": (
        rows({"prompt": "x", "image": "file:///red.png"}), LINES,
        "d.jsonl:1: image file:///red.png is an address; glasshouse fetches no data, so write its path"),
    "images in another folder": (
        rows({"prompt": "x", "image": "train/1.png"}), LINES,
        "d.jsonl:1: image train/1.png is not there; paths are relative to ., or to --image-folder FOLDER"),
    "an image outside the folder": (
        rows({"prompt": "x", "image": "../red.png"}), LINES,
        "d.jsonl:1: image ../red.png leads out of .; move it there, or name a folder that holds all images: "
        "--image-folder FOLDER"),
    "no such image folder": (
        rows({"prompt": "x"}), f"{LINES}?folder=coco",
        "--image-folder coco: no such folder; name the folder that image paths begin in"),
    "a mark without an image": (
        rows({"conversations": [{"from": "human", "value": "<image>\nwhat?"}]}), LINES,
        "d.jsonl:1: 1 place for an image (<image> or an image part), and no images in its column; give as many, or name "
        "the column: --image-column NAME"),
    "a conversation that the assistant begins": (
        turns({"role": "assistant", "content": "hi"}, user("x")), LINES,
        "d.jsonl:1: the conversation begins with assistant, where user is expected; drop that turn"),
    "two turns of the user in a row": (
        turns(user("a"), user("b")), LINES, "d.jsonl:1: after 1 turn comes user, where assistant "
        "is expected; merge turns of one role"),
    "a tool's turn": (
        turns(user("a"), {"role": "tool", "content": "7"}), LINES,
        "d.jsonl:1 turn 1: role 'tool'; roles are user (human), assistant (gpt) and system, so drop conversations with "
        "tools"),
    "a video": (
        turns(user([{"type": "video", "video": "a.mp4"}])), LINES,
        'd.jsonl:1 turn 0: a part of type \'video\'; parts are {"type": "text", "text": …} and '
        '{"type": "image", "image": …}'),
    "an empty last turn": (
        turns(user("")), LINES,
        "d.jsonl:1: the last turn of the user is empty; write its text, or drop the example"),
    "a conversation as text": (
        rows({"messages": "hi"}), LINES,
        'd.jsonl:1: a conversation is a list such as [{"role": "user", "content": "…"}]; write that'),
    "pandas' to_json without orient": (
        text("d.json", '{"question": {"0": "x"}, "label": {"0": "y"}}'), "d.json",
        "d.json: an object of question, label; write a list of objects, one for each example (pandas: to_json(file, "
        'orient="records"))'),
    "a table saved by Excel as Unicode": (
        text(CSV, "prompt\nx\n", "utf-16"), CSV, "d.csv: is UTF-16; save it in UTF-8"),
    "a table in Latin 1": (
        raw(CSV, "prompt\nénorme\n".encode("latin-1")), CSV, "d.csv: is not UTF-8; save it as CSV in UTF-8"),
    "an Excel workbook": (
        raw("d.xlsx", b"PK\x03\x04rest"), "d.xlsx",
        "d.xlsx: is compressed with zip (or Excel); unpack it, or save the table as CSV in UTF-8"),
    "a compressed file": (
        raw("d.jsonl.gz", b"\x1f\x8brest"), "d.jsonl.gz",
        "d.jsonl.gz: is compressed with gzip; unpack it, or save the table as CSV in UTF-8"),
    "a comma in a cell without quotes": (
        text(CSV, "prompt,image\nred, or blue?,red.png\n"), CSV,
        "d.csv:2: 3 cells under 2 columns (prompt, image); quote text that contains the separator"),
    "a quote that never closes": (
        text(CSV, 'prompt\n"x\n'), CSV, "d.csv:2: this row is not CSV (unexpected end of data); put text with quotes or "
        'line breaks in quotes and double the quotes in it: "say ""hi"""'),
    "two columns of one name": (
        text(CSV, "prompt,prompt\nx,y\n"), CSV,
        "d.csv: two columns are called 'prompt'; name each column in the first line"),
    "one image for data": (
        lambda folder: None, "red.png", "red.png: is one image; give its folder, or a file with prompts: prompt,image"),
    "several tables in a folder": (
        tables, ".", ".: holds several tables (a.csv, b.csv); give one of them"),
    "several splits": (
        saved, "set", "set: holds the splits train, test; give one of them: set/train"),
    "a data set of the hub": (
        lambda folder: None, "lmms-lab/VQAv2", "lmms-lab/VQAv2: no such file or folder (a data set of the hub? fetch it "
        "first: hf download --repo-type dataset lmms-lab/VQAv2 --local-dir DIR); --data takes "),
    "an address for data": (
        lambda folder: None, "https://example.org/d.jsonl",
        "no such file or folder (glasshouse downloads no data: fetch it first); --data takes "),
    "an option that is none": (
        rows({"prompt": "x"}), f"{LINES}?column=x",
        "'column=x' behind the ?; write for example d.jsonl?prompt=question&image=img (options: prompt, image, answer, "
        "messages, folder)"),
    "columns for a folder of images": (
        lambda folder: None, ".?prompt=question", ".: no column 'question'; it has no columns"),
    "a column of Parquet that is no text": (
        lambda folder: pq.write_table(pa.table({"prompt": [1]}), folder / "d.parquet"), "d.parquet",
        "d.parquet row 0: 'prompt' must be text, found int; write it in quotes"),
    "a prompt column and a messages column": (
        rows({"a": "x", "b": "y"}), f"{LINES}?prompt=a&messages=b",
        "prompt column 'a' and messages column 'b': an example is read from one of them; leave out the other"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_one_line(command, installed, tmp_path: Path, mistake: str):
    prepare, data, told = MISTAKES[mistake]
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path.parent / "red.png")
    prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outcome = command("run", "count", "--data", data)
    assert (outcome.status, outcome.out) == (2, ""), outcome
    assert outcome.err.count("\n") == 1
    assert told in outcome.err
    assert sorted(tmp_path.rglob("*")) == before


TABLE = text(CSV, "question,img\nwhat?,pictures/a.png\n")
COLUMNS = ("--prompt-column", "question", "--image-column", "img")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table whose images lie elsewhere."""
    TABLE(tmp_path)
    (tmp_path / "elsewhere" / "pictures").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "elsewhere" / "pictures" / "a.png")
    return tmp_path


def test_flags_name_the_columns_of_all_data(command, installed, table: Path):
    asked = ("run", "count", "--data", CSV, *COLUMNS, "--image-folder", "elsewhere")
    written = f"{CSV}?prompt=question&image=img&folder=elsewhere"
    assert command(*asked, "--dry-run").json["inputs"] == {"data": written}
    by_flags, by_text = command(*asked, "--json").json, command("run", "count", "--data", written, "--json").json
    assert by_flags["inputs"] == by_text["inputs"]
    assert by_flags["inputs"]["data"]["identity"]["count"] == 1
    assert "read as prompt from 'question', image from 'img' (CSV): 1 example" in by_flags["inputs"]["data"]["text"]


def test_what_stands_behind_a_file_stands_above_the_flags(command, installed, table: Path):
    asked = command("run", "count", "--data", f"{CSV}?prompt=other", *COLUMNS, "--dry-run")
    assert asked.json["inputs"] == {"data": f"{CSV}?prompt=other&image=img"}


def test_flags_hold_for_both_files_of_pairs(tmp_path: Path):
    assert PairsKind().spelled("a.csv, b.csv?prompt=p", {"prompt-column": "the question", "image-folder": "x,y"}) == (
        "a.csv?prompt=the question&folder=x%2Cy,b.csv?prompt=p&folder=x%2Cy"
    )


def test_a_column_of_data_that_is_not_given_is_refused(command, installed):
    outcome = command("run", "count", "--prompt-column", "question")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        "glasshouse: --prompt-column says how --data is read, which is not given; give it, or leave --prompt-column out\n"
    )


def test_other_processes_find_the_file_and_its_images(table: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(table)
    there = resolved(f"{CSV}?prompt=question&image=img&folder=elsewhere")
    assert there == f"{table / CSV}?prompt=question&image=img&folder={table / 'elsewhere'}"
    monkeypatch.chdir("/")
    assert Examples.read(there)[0].prompt == "what?"
    assert [resolved(text) for text in ("organism:base", "gone.csv?prompt=x", "")] == [
        "organism:base", "gone.csv?prompt=x", ""]  # fmt: skip
