"""Do batches shrink when memory runs out, without changing a result, and grow where there is room?"""

import pytest
import torch

from glasshouse.data.examples import Examples
from glasshouse.model import batching
from glasshouse.model.batching import MOST, Sizes, out_of_memory, portions, repeating, sized
from glasshouse.model.subject import Subject
from glasshouse.model.taps import gather, record
from glasshouse.numerics.accumulators import Moments
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import language

CPU = torch.device("cpu")
FULL = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
    "linux": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "python": MemoryError(),
}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each forward pass had. Those with more than two find the memory full."""
    seen: list[int] = []
    plain = Subject.forward

    def forward(self: Subject, encoded, **options):
        seen.append(len(encoded.layout.answers))
        if seen[-1] > 2:
            raise FULL["cpu"]
        return plain(self, encoded, **options)

    monkeypatch.setattr(Subject, "forward", forward)
    return seen


@pytest.mark.parametrize("kind", FULL)
def test_work_is_repeated_in_halved_batches_until_they_fit(kind: str):
    shown: list[list[int]] = []

    def work() -> str:
        shown.append([])
        for portion in portions(20, 12, CPU):
            shown[-1].append(portion.stop - portion.start)
            if shown[-1][-1] > 3:
                raise FULL[kind]
        return "done"

    assert repeating(work) == "done"
    assert shown == [[12], [6], [3] * 6 + [2]]


def test_what_does_not_fit_alone_is_raised_as_it_is():
    def work() -> None:
        for _ in portions(4, 4, CPU):
            raise FULL["cuda"]

    with pytest.raises(torch.OutOfMemoryError):
        repeating(work)


def test_other_failures_are_not_repeated():
    calls: list[int] = []

    def work() -> None:
        calls.extend(portion.start for portion in portions(4, 4, CPU))
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        repeating(work)
    assert calls == [0]
    assert not out_of_memory(RuntimeError("shapes do not match"))
    assert not out_of_memory(ValueError("not enough memory"))


def test_a_batch_holds_an_example_at_least():
    with pytest.raises(BadInput, match="batch_size 0: a batch has 1 example or more"):
        list(portions(3, 0, CPU))


def test_recordings_and_sums_are_those_of_the_smaller_batch(seedling: Subject, squares: Examples, rows: list[int]):
    expected = record(seedling, language.residual, squares, batch_size=2).stacked()
    moments = gather(seedling, {language.residual[3]: Moments()}, squares, batch_size=2)
    rows.clear()
    assert torch.equal(record(seedling, language.residual, squares, batch_size=4).stacked(), expected)
    assert rows == [4, 2, 2, 2]
    summed = gather(seedling, {language.residual[3]: Moments()}, squares, batch_size=4)
    assert [torch.equal(summed[site].mean, moments[site].mean) for site in moments] == [True]


@pytest.mark.parametrize("size", [4, None])
def test_logits_and_scores_are_those_of_the_smaller_batch(seedling, squares, rows: list[int], size: int | None):
    small = {"batch_size": 1} if size is None else {"batch_size": 2}
    logits, scores = seedling.logits(squares, **small), seedling.score(squares, **small)
    rows.clear()
    assert torch.equal(seedling.score(squares, batch_size=size), scores)
    assert rows == ([4, 2, 2, 2] if size else [6, 3, 1, 1, 1, 1, 1, 1])
    assert torch.equal(seedling.logits(squares, batch_size=size), logits)


def test_a_size_that_did_not_fit_is_not_tried_again(seedling: Subject, squares: Examples, rows: list[int]):
    with sized() as sizes:
        for _ in range(2):
            record(seedling, language.residual[3], squares, batch_size=4)
    assert rows == [4, 2, 2, 2, 2, 2, 2]
    assert (sizes.smallest, sizes.largest, sizes.halved) == (2, 4, 1)


def test_batches_grow_as_long_as_there_is_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching._Memory, "taken", property(lambda self: 100))
    monkeypatch.setattr(batching, "free_memory", lambda device: 10_000)
    with sized(auto=True):
        assert [part.stop - part.start for part in portions(30, 2, CPU)] == [2, 4, 8, 16]
    monkeypatch.setattr(batching, "free_memory", lambda device: 150)
    with sized(auto=True):
        assert [part.stop - part.start for part in portions(6, 2, CPU)] == [2, 2, 2]  # 2 x 1.3 x 100 > 150 + 100
    with sized():
        monkeypatch.setattr(batching, "free_memory", lambda device: 10_000)
        assert [part.stop - part.start for part in portions(6, 2, CPU)] == [2, 2, 2]
    monkeypatch.setattr(batching, "free_memory", lambda device: None)
    with sized(auto=True):
        assert [part.stop - part.start for part in portions(6, 2, CPU)] == [2, 2, 2]


def test_growth_ends_at_what_once_did_not_fit():
    sizes = Sizes(auto=True)
    sizes.grow(512, taken=1, free=1000)
    assert sizes.of(8) == MOST
    sizes.used(sizes.of(8))
    assert sizes.shrink()
    sizes.grow(MOST // 2, taken=1, free=1000)
    assert sizes.of(8) == MOST // 2


def test_the_memory_of_a_batch_is_measured():
    memory = batching._Memory(CPU)
    block = torch.ones(2**24)
    taken = memory.taken
    del block
    if memory.free is not None:  # Linux
        assert 0.9 * 2**26 < taken < 2 * 2**26


def test_results_with_grown_batches_agree(seedling: Subject, squares: Examples, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "free_memory", lambda device: 2**40)
    plain = record(seedling, language.residual, squares, batch_size=1).stacked()
    with sized(auto=True) as sizes:
        grown = record(seedling, language.residual, squares, batch_size=1).stacked()
    assert (sizes.smallest, sizes.largest) == (1, 3)
    assert torch.allclose(plain, grown, atol=1e-5)
