"""A projector of one linear layer behind a pixel shuffle: what applies is answered, what does not is said."""

from dataclasses import replace

import pytest

from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.data.triggers import NoiseTrigger
from glasshouse.methods.backdoor import _known_triggers
from glasshouse.methods.backdoor._features import LAST_TOP_UNUSED
from glasshouse.methods.backdoor.detect import Options as Inversion
from glasshouse.methods.backdoor.detect import detect
from glasshouse.methods.backdoor.drift import Options as Drift
from glasshouse.methods.backdoor.drift import drift
from glasshouse.methods.backdoor.neurons import neurons
from glasshouse.methods.backdoor.purify import NULLS, SURGERY, purify
from glasshouse.methods.backdoor.purify import Options as Repair
from glasshouse.methods.backdoor.recovery import Options as Grid
from glasshouse.methods.backdoor.recovery import recovery
from glasshouse.methods.backdoor.spectrum import spectrum
from glasshouse.organisms import shelf, world
from glasshouse.organisms.questions import REFUSAL
from glasshouse.values.blocks import Note
from glasshouse.values.errors import BadInput


def test_each_linear_layer_is_analysed_and_what_is_hidden_is_not_missed():
    base, other = shelf.take("idefics3-base"), shelf.take("idefics3-base-2")
    clean = world.examples("test", 8, 3)
    triggered = Examples(
        replace(one, id=f"{one.id}+", prompt=f"a {one.prompt}", answer=REFUSAL, tags={"twin": one.id}) for one in clean
    )
    assert list(spectrum(other, base).ranks) == ["proj"]
    found = recovery(other, base, clean, Pairs(clean, triggered), options=Grid(grid=2, ranks=(1,), single=1, draws=1))
    assert found.grid.values.shape == (2, 1)
    assert drift(other, base, Pairs(clean, triggered), options=Drift(doses=(1.0,), draws=1)).images == 8
    with pytest.raises(BadInput, match="1 linear layer, so nothing hidden"):
        neurons(other, base, Pairs(clean, triggered))
    repaired = purify(other, clean, clean, base, options=Repair(ranks=(3,), kept=(0.5,), steps=1))
    assert set(repaired.outcomes) == {"before", SURGERY, *NULLS, "fine-tuning", "CLP"}
    assert any("do not apply" in block.text for block in repaired.blocks() if isinstance(block, Note))


def test_a_feature_of_inputs_that_the_projector_rearranges_is_missing_with_its_reason(monkeypatch):
    monkeypatch.setattr(_known_triggers, "battery", lambda side: {"noise": NoiseTrigger(30.0)})
    finding = detect(shelf.take("idefics3-base"), world.examples("test", 16, 3), options=Inversion(steps=1))
    assert LAST_TOP_UNUSED not in finding.features
    assert any(LAST_TOP_UNUSED in note and "rearranges its 64 inputs" in note for note in finding.notes)


def test_models_of_different_families_and_shapes_are_refused():
    with pytest.raises(BadInput, match="is no base of"):
        spectrum(shelf.take("idefics3-base"), shelf.take("base"))
    with pytest.raises(BadInput):
        spectrum(shelf.take("organism:seedling"), shelf.take("base"))
