"""The same is computed once, and nothing that differs is taken for it."""

import pytest
import torch

from glasshouse.model import identity, remembered
from glasshouse.model.identity import UNHASHED
from glasshouse.model.remembered import look
from glasshouse.model.sharing import MOST, Shared, content, shared, sharing
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism


def test_what_was_computed_is_given_again_inside_and_never_outside():
    asked: list[int] = []

    def compute() -> torch.Tensor:
        asked.append(1)
        return torch.ones(2)

    for _ in range(2):
        shared(lambda: ("a",), compute)
    assert len(asked) == 2
    with sharing() as kept:
        first, again = (shared(lambda: ("a",), compute) for _ in range(2))
        assert first is again
        shared(lambda: ("b",), compute)
        for _ in range(2):
            shared(lambda: None, compute)
    assert (len(asked), kept.saved) == (6, 1)


def test_the_oldest_goes_when_there_is_too_much(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("glasshouse.model.sharing.MOST", 24)
    kept = Shared()
    for name in "abc":
        kept.put(name, torch.zeros(3))
    assert list(kept.values) == ["b", "c"]
    assert MOST > 24


def test_content_tells_values_types_and_shapes_apart():
    ones = torch.ones(4)
    others = (torch.zeros(4), ones.double(), ones.view(2, 2))
    assert content([ones]) == content([ones.clone()])
    assert len({content([one]) for one in (ones, *others)}) == 4


def test_a_tower_is_looked_at_once_for_models_that_have_the_same(monkeypatch: pytest.MonkeyPatch):
    base, tuned, other = (shelf.take(name) for name in ("base", "benign", "base-2"))
    encoded = base.encode(organism("benign").examples[:2])
    looked: list[str] = []
    own = remembered._look
    monkeypatch.setattr(remembered, "_look", lambda subject, batch: looked.append(subject.name) or own(subject, batch))
    with sharing():
        seen = {one.name: look(one, encoded) for one in (base, tuned, other)}
        assert looked == ["organism:base", "organism:base-2"]
        assert torch.equal(seen["organism:benign"], own(tuned, encoded))
        assert not torch.equal(seen["organism:base-2"], seen["organism:base"])
        monkeypatch.setattr(identity, "weight_hash", lambda *_: f"{UNHASHED}: some weights are offloaded")
        monkeypatch.setattr(tuned, "_hashed", None)
        assert tuned.content is None
        look(tuned, encoded)
        look(tuned, encoded)
    assert looked[2:] == ["organism:benign"] * 2
