"""Does an organism bring what it is examined with, opened when asked for and not before?"""

import pytest

import glasshouse as gh
from glasshouse.organisms import shelf
from glasshouse.organisms.recipes import SHIPPED
from glasshouse.values.errors import BadInput


def test_a_backdoored_organism_brings_everything(monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    take = shelf.take
    monkeypatch.setattr(shelf, "take", lambda name: opened.append(name) or take(name))
    logo = gh.organism("hijack-logo")
    assert logo.card.name == "hijack-logo"
    assert (len(logo.examples), len(logo.held_out), len(logo.pairs)) == (64, 160, len(logo.pairs.triggered))
    assert not opened, "examples need no model"
    assert logo.base is logo.base
    assert logo.base.name == "organism:base"
    assert logo.subject.name == logo.name == "organism:hijack-logo"
    assert opened == ["organism:base", "organism:hijack-logo"]
    prompts = [{example.id for example in part} for part in (logo.examples, logo.held_out, logo.training)]
    assert not set.intersection(*prompts)
    assert len(logo.training) == 3000


def test_parts_that_an_organism_does_not_have_are_refused():
    base, benign, seedling = (gh.organism(name) for name in ("organism:base", "benign", "seedling"))
    for lacking in (base, seedling):
        assert not lacking.brings("base")
        with pytest.raises(BadInput, match="grown from random weights, so it has no base"):
            _ = lacking.base
    for lacking in (base, benign, seedling):
        assert not lacking.brings("pairs")
        with pytest.raises(BadInput, match="nothing was planted in it, so it has no pairs"):
            _ = lacking.pairs
    assert benign.brings("base")
    assert seedling.card is None
    parts = (seedling.examples, seedling.held_out, seedling.training)
    assert len({part.digest for part in parts}) == 3


def test_all_are_available_and_an_unknown_name_is_refused():
    assert gh.organism("base").available() == ["seedling", *shelf.names()]
    assert set(gh.Organism.available()) == {"seedling", *SHIPPED}
    with pytest.raises(BadInput, match="did you mean hijack-logo"):
        gh.organism("hijack-lego")


def test_clean_twins_of_a_text_trigger_keep_their_own_prompts():
    """The trigger is a word in the prompt: a clean twin judged by the target must not carry it."""
    pairs = gh.organism("text-trigger").pairs
    word = gh.organism("text-trigger").card.recipe.poison.trigger.word
    assert all(triggered.prompt == f"{word} {clean.prompt}" for clean, triggered in pairs)
    for judged, (clean, triggered) in zip(pairs.clean_for_target, pairs, strict=True):
        assert judged.prompt == clean.prompt
        assert judged.tags["target"] == triggered.tags["target"]
    assert all(correct.prompt.startswith(word) for correct in pairs.triggered_for_truth)
