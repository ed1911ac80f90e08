"""Work in shards equals work in one pass, and nothing but a whole shard of the same data is ever taken up again."""

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.engine.scale import Workspace, over_shards, working_in, write_whole
from glasshouse.values.errors import BadInput, Unwritable


@dataclass
class Seen:
    values: Float[Tensor, " prompts"]
    total: int

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(torch.cat([self.values, other.values]), self.total + other.total)


@dataclass
class Other:
    values: str


DATA = Examples(Example(prompt="x" * number) for number in range(1, 8))


class Worker:
    """Counts what it is asked to do; may stop in the middle."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.shards: list[int] = []
        self.stop_after = stop_after

    def __call__(self, shard: Examples) -> Seen:
        if len(self.shards) == self.stop_after:
            raise KeyboardInterrupt
        self.shards.append(len(shard))
        lengths = torch.tensor([float(len(example.prompt)) for example in shard])
        return Seen(lengths / 3, int(lengths.sum()))


def work(folder: Path, data: Examples = DATA, worker: Worker | None = None, name: str = "shard", size: int = 2):
    """A pass in this folder: the result, the worker and the workspace."""
    worker = worker or Worker()
    with working_in(Workspace(folder)) as workspace:
        result = over_shards(worker, data, Seen, name=name, size=size)
    return result, worker, workspace


def same(one: Seen, two: Seen) -> bool:
    return torch.equal(one.values, two.values) and one.total == two.total


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_shards_equal_one_pass(tmp_path: Path, size: int):
    whole = Worker()(DATA)
    assert same(over_shards(Worker(), DATA, Seen, size=size), whole)
    result, worker, _ = work(tmp_path, size=size)
    assert same(result, whole)
    assert len(worker.shards) == len(list(tmp_path.iterdir())) == -(-len(DATA) // size)


def test_outside_a_run_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    over_shards(Worker(), DATA, Seen, size=2)
    assert list(tmp_path.iterdir()) == []


def test_what_was_finished_is_not_done_again(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path, worker=Worker(stop_after=2))
    result, worker, workspace = work(tmp_path)
    assert (worker.shards, workspace.resumed) == ([2, 1], 2)
    assert same(result, Worker()(DATA))


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes()[:12]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\0" * 64),
        lambda file: file.write_text("no safetensors at all"),
        lambda file: torch.save({}, file),
    ],
    ids=["truncated", "cut in its header", "empty", "zeros", "text", "pickle"],
)
def test_a_damaged_shard_is_done_again(tmp_path: Path, damage):
    expected, _, _ = work(tmp_path)
    damage(sorted(tmp_path.iterdir())[1])
    result, worker, workspace = work(tmp_path)
    assert (worker.shards, workspace.resumed) == ([2], 3)
    assert same(result, expected)
    _, _, workspace = work(tmp_path)
    assert workspace.resumed == 4  # it was mended


def test_a_shard_of_another_kind_is_done_again(tmp_path: Path):
    with working_in(Workspace(tmp_path)):
        over_shards(lambda shard: Other("mine"), DATA[:2], Other, size=2)
    _, worker, workspace = work(tmp_path, DATA[:2])
    assert (worker.shards, workspace.resumed) == ([2], 0)


@pytest.mark.parametrize(
    "other",
    [
        Examples(replace(example, prompt=example.prompt.replace("x", "y")) for example in DATA),
        Examples(replace(example, answer="a") for example in DATA),
        Examples(replace(example, tags={"kind": 1}) for example in DATA),
        Examples(reversed(list(DATA))),
    ],
    ids=["other prompts", "other answers", "other tags", "another order"],
)
def test_shards_of_other_data_are_never_taken(tmp_path: Path, other: Examples):
    work(tmp_path, other)
    result, worker, workspace = work(tmp_path)
    assert workspace.resumed == 0
    assert worker.shards == [2, 2, 2, 1]
    assert same(result, Worker()(DATA))


def test_two_loops_of_one_run_do_not_mix(tmp_path: Path):
    work(tmp_path, name="first")
    _, worker, workspace = work(tmp_path, name="second")
    assert (len(worker.shards), workspace.resumed) == (4, 0)


def test_a_half_written_file_is_no_shard(tmp_path: Path):
    work(tmp_path)
    for file in tmp_path.iterdir():
        file.rename(file.with_name(f".{file.name}.1234.part"))
    _, worker, workspace = work(tmp_path)
    assert (len(worker.shards), workspace.resumed) == (4, 0)


def test_writing_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "kept"
    write_whole(file, b"old")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(BadInput, match="No space"):
        write_whole(file, b"new, and longer")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "choose a folder that you may write in"),
        (errno.EROFS, "choose a folder that you may write in"),
        (errno.EIO, "choose another place"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int, cure: str
):
    def refuse(self: Path, *args, **kwargs):
        raise OSError(reason, os.strerror(reason), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(Unwritable, match=f"new/page.html: cannot be written .*; {cure}"):
        write_whole(tmp_path / "new" / "page.html", b"new")


def test_a_file_under_a_file_or_in_place_of_a_folder_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for place in ("file/page.html", "file/new/page.html"):
        with pytest.raises(Unwritable, match=r"cannot be written .* is no folder: choose another place"):
            write_whole(tmp_path / place, b"new")
    with pytest.raises(Unwritable, match="that is a folder: name a file in it"):
        write_whole(tmp_path, b"new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_progress_is_told(tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    with working_in(Workspace(tmp_path, lambda *now: told.append(now))):
        over_shards(Worker(), DATA, Seen, name="looking", size=3)
    assert told == [("looking", 1, 3), ("looking", 2, 3), ("looking", 3, 3)]


def test_no_examples_are_refused():
    with pytest.raises(BadInput, match="no examples"):
        over_shards(Worker(), DATA[:0], Seen)
