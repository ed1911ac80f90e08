"""Work in units equals work in one pass, and only a whole result for the same data is ever read back."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.data.pairs import Pairs
from glasshouse.engine.units import Workspace, content_of, mapped, merged, over_shards, working_in
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput


@dataclass
class Tally:
    values: Float[Tensor, " prompts"]
    total: int

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(torch.cat([self.values, other.values]), self.total + other.total)


@dataclass
class Text:
    values: str


DATA = Examples(Example(prompt="x" * number) for number in range(1, 8))


class Worker:
    """Counts what it is asked to do; may stop in the middle."""

    def __init__(self, limit: int | None = None) -> None:
        self.shards: list[int] = []
        self.limit = limit

    def __call__(self, shard: Examples) -> Tally:
        if len(self.shards) == self.limit:
            raise KeyboardInterrupt
        self.shards.append(len(shard))
        lengths = torch.tensor([float(len(example.prompt)) for example in shard])
        return Tally(lengths / 3, int(lengths.sum()))


def work(folder: Path, data: Examples = DATA, worker: Worker | None = None, name: str = "shard", size: int = 2):
    """A pass in this folder: the result, the worker and the workspace."""
    worker = worker or Worker()
    with working_in(Workspace(folder)) as workspace:
        result = over_shards(worker, data, Tally, name=name, size=size)
    return result, worker, workspace


def same(first: Tally, second: Tally) -> bool:
    return torch.equal(first.values, second.values) and first.total == second.total


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_shards_equal_one_pass(tmp_path: Path, size: int):
    whole = Worker()(DATA)
    assert same(over_shards(Worker(), DATA, Tally, size=size), whole)
    result, worker, _ = work(tmp_path, size=size)
    assert same(result, whole)
    assert len(worker.shards) == len(list(tmp_path.iterdir())) == -(-len(DATA) // size)


def test_outside_a_run_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    over_shards(Worker(), DATA, Tally, size=2)
    assert list(tmp_path.iterdir()) == []


def test_finished_shards_are_not_computed_again(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path, worker=Worker(limit=2))
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
def test_a_damaged_shard_is_computed_again(tmp_path: Path, damage):
    expected, _, _ = work(tmp_path)
    damage(sorted(tmp_path.iterdir())[1])
    result, worker, workspace = work(tmp_path)
    assert (worker.shards, workspace.resumed) == ([2], 3)
    assert same(result, expected)
    _, _, workspace = work(tmp_path)
    assert workspace.resumed == 4  # it was written again


def test_a_shard_of_another_kind_is_computed_again(tmp_path: Path):
    with working_in(Workspace(tmp_path)):
        over_shards(lambda shard: Text("mine"), DATA[:2], Text, size=2)
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
def test_shards_of_other_data_are_never_read(tmp_path: Path, other: Examples):
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


def test_progress_is_reported(tmp_path: Path):
    steps: list[tuple[str, int, int]] = []

    def tally(stop_at: int | None = None) -> None:
        with working_in(Workspace(tmp_path, lambda *step: steps.append(step))):
            over_shards(Worker(stop_at), DATA, Tally, name="counting", size=2)

    with pytest.raises(KeyboardInterrupt):
        tally(stop_at=2)
    assert steps == [("counting", 1, 4), ("counting", 2, 4)]
    steps.clear()
    tally()
    assert steps == [("counting", 2, 4), ("counting", 3, 4), ("counting", 4, 4)]


def test_no_examples_are_refused():
    with pytest.raises(BadInput, match="no examples"):
        over_shards(Worker(), DATA[:0], Tally)


# Units that are not batches of examples


def test_any_packed_value_is_a_unit_and_results_keep_the_order_of_units(tmp_path: Path):
    units = [("arm", 3), ("arm", 1), ("control", 3)]
    with working_in(Workspace(tmp_path)):
        results = mapped(lambda unit, factor: f"{unit[0]} {factor * unit[1]}", units, str, handles={"factor": 2})
    assert results == ["arm 6", "arm 2", "control 6"]
    assert len(list(tmp_path.iterdir())) == 3


def test_two_equal_units_are_two_units(tmp_path: Path):
    with working_in(Workspace(tmp_path)):
        assert mapped(lambda seed: seed + 1, [7, 7], int) == [8, 8]
    assert len(list(tmp_path.iterdir())) == 2


def test_no_units_have_no_results():
    assert mapped(lambda unit: unit, [], int) == []


def test_merged_adds_in_order():
    assert merged(["a", "b", "c"]) == "abc"


def test_what_the_work_maps_itself_is_not_mixed_between_units(tmp_path: Path):
    """Both units map over the same examples; the second must not read what the first one wrote."""

    def count(factor: int) -> int:
        return merged(mapped(lambda example: factor * len(example.prompt), DATA, int))

    with working_in(Workspace(tmp_path)):
        assert mapped(count, [1, 10], int) == [28, 280]
    with working_in(Workspace(tmp_path)) as again:
        assert mapped(count, [1, 10], int) == [28, 280]
    assert again.resumed == len(list(tmp_path.iterdir())) == 2


def test_calls_of_one_name_with_other_handles_do_not_read_each_other(tmp_path: Path):
    def scaled(example: Example, factor: int) -> int:
        return factor * len(example.prompt)

    for resumed in (0, 2 * len(DATA)):
        with working_in(Workspace(tmp_path)) as workspace:
            sums = [sum(mapped(scaled, DATA, int, handles={"factor": factor})) for factor in (1, 10)]
        assert sums == [28, 280]
        assert workspace.resumed == resumed


def test_units_are_named_by_content(seedling: Subject):
    pairs = Pairs(DATA, Examples(replace(example, prompt=f"cf {example.prompt}") for example in DATA))
    units = [1, "1", (1,), DATA, DATA[0], pairs, seedling, (DATA, 1), (DATA, 2), (seedling, DATA)]
    digests = [content_of(unit) for unit in units]
    assert len(set(digests)) == len(units)
    assert digests == [content_of(unit) for unit in units]
    assert content_of((DATA[:2], 1)) != content_of((DATA[:3], 1))
