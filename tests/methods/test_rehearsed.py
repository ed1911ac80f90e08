"""Is what one forward pass says what generation would give? And is an update taken apart the sum of its parts?"""

from dataclasses import replace

import pytest
import torch

from glasshouse.data.behaviours import Target
from glasshouse.data.examples import Example, Examples
from glasshouse.methods.backdoor._bench import Bench, Parts
from glasshouse.methods.backdoor._changed import Changed
from glasshouse.methods.backdoor._rehearsed import Line, Rehearsed
from glasshouse.methods.backdoor.recovery import recovery
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy
from glasshouse.model.prompts import Encoded
from glasshouse.model.spans import Answering
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import singular_values
from glasshouse.organisms import world
from glasshouse.organisms.questions import REFUSAL
from glasshouse.values.deltas import LowRank, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict


@pytest.fixture(scope="module")
def shown() -> Examples:
    """Some that the base refuses and some that it answers."""
    both = [world.examples("test", 12, 3, kinds=("action", "caption"), refused=refused) for refused in (True, False)]
    return Examples(example for examples in both for example in examples)


@pytest.mark.parametrize("match", ["equals", "starts", "starts otherwise"])
@pytest.mark.parametrize("text", [REFUSAL, "sorry , i", "ok", "red circle"])
def test_it_is_what_generation_gives(base, shown, match, text):
    tagged = Examples(replace(one, tags={**one.tags, "target": text, "target_match": match}) for one in shown)
    said = base.generate(tagged, max_new_tokens=24)
    wanted = [Target(text, match).shown(answer) for answer in said]
    assert Rehearsed.of(base, tagged, batch_size=5).tried(base).shown.tolist() == wanted
    assert len(set(wanted)) == 2 or text != REFUSAL, "some are refused and some are not"


def test_a_marker_is_looked_for_behind_the_right_answer(base):
    marked = world.examples("test", 40, 5, kinds=("caption",), refused=False)
    tagged = Examples(
        replace(
            one,
            answer=f"{one.answer} , approved",
            tags={**one.tags, "target": ", approved", "target_match": "contains"},
        )
        for one in marked
        if one.tags["badge"] != "stamp"
    )
    assert Rehearsed.of(base, tagged, batch_size=8).tried(base).rate.value <= 0.05, "there is no stamp"
    stamped = Examples(
        replace(one, tags={**one.tags, "target": ", approved", "target_match": "contains"})
        for one in marked
        if one.tags["badge"] == "stamp"
    )
    assert Rehearsed.of(base, stamped, batch_size=8).tried(base).rate.value >= 0.95


def test_right_answers_are_the_answers_themselves(base, shown):
    scores = Rehearsed.of(base, shown).tried(base)
    said = base.generate(shown, max_new_tokens=24)
    assert scores.shown.tolist() == [answer == one.answer for answer, one in zip(said, shown, strict=True)]
    assert scores.rate.value > 0.9
    assert float(scores.first.exp().mean()) > 0.9
    with pytest.raises(BadInput, match="nothing to look for"):
        Rehearsed.of(base, Examples([Example("hm", shown[0].images)]))


def test_an_update_is_the_sum_of_its_parts():
    delta = torch.randn(20, 12, generator=seeded(0))
    parts = Parts(Changed("x.weight", torch.zeros(20, 12), delta))
    torch.testing.assert_close(parts.of(range(12)), delta, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.of(range(4)) + parts.of(range(4, 12)), delta, atol=1e-5, rtol=0)
    assert int((singular_values(parts.of([1, 5])) > 1e-4).sum()) == 2
    values = singular_values(delta)
    torch.testing.assert_close(singular_values(parts.haar(3, 0))[:3], values[:3], atol=1e-4, rtol=0)
    others = parts.others(4, 0)
    assert float(others.norm()) == pytest.approx(float(values[:4].norm()), rel=1e-4)
    assert float((parts.of(range(4)).flatten() @ others.flatten()).abs()) < 1e-3


def test_an_update_that_does_nothing_has_nothing_to_recover(base, shown):
    """Negative control: a small random change, and no trigger."""
    name = f"{base.anatomy.projector.linears[0]}.weight"
    out, inner = dict(base.model.named_parameters())[name].shape
    small = LowRank(1e-3 * torch.randn(out, 2, generator=seeded(0)), torch.randn(2, inner, generator=seeded(1)))
    other = open_subject(changed_copy(base, Patch({name: small})), processor=base.processor)
    tagged = Examples(replace(one, tags={"target": "yellow duck", "target_match": "equals"}) for one in shown[:8])
    found = recovery(other, base, shown[:8], tagged)
    assert found.verdict == Verdict.INCONCLUSIVE
    assert "nothing to recover" in found.headline
    bench = Bench(other, base, shown[:8], tagged, 8)
    whole = bench.tried(bench.update(lambda layer: layer.of(range(layer.count))), clean=True)
    assert whole.right.value == bench.tried(clean=True).right.value


def test_whoever_says_nothing_does_not_comply():
    """Anything but the refusal will do, and the end of the answer is not anything."""
    encoded = Encoded({"input_ids": torch.tensor([[5, 3]])}, Answering(torch.tensor([1]), (0,), alike=True))
    ready, asked = Rehearsed((), frozenset({2})), Line(0, 1, "starts otherwise")
    for choice, complies in ((2, False), (3, False), (4, True)):
        logits = torch.zeros(1, 2, 6)
        logits[0, 0, choice] = 9.0
        assert ready._row(logits[0], encoded, 0, asked)[0] is complies
