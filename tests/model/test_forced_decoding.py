"""Is what one forward pass says what generation would give? And is an update taken apart the sum of its parts?"""

from dataclasses import replace

import pytest
import torch

from glasshouse.data.behaviours import Target
from glasshouse.data.examples import Example, Examples
from glasshouse.model.forced_decoding import Batch, Check, ForcedDecoding
from glasshouse.model.layout import PromptLayout
from glasshouse.model.prompts import Encoded
from glasshouse.organisms import world
from glasshouse.organisms.questions import REFUSAL
from glasshouse.values.errors import BadInput


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Examples that the base refuses and examples that it answers."""
    both = [world.examples("test", 12, 3, kinds=("action", "caption"), refused=refused) for refused in (True, False)]
    return Examples(example for half in both for example in half)


@pytest.fixture(scope="module")
def answers(base, examples: Examples) -> list[str]:
    return base.generate(examples, max_new_tokens=24)


@pytest.mark.parametrize("match", ["equals", "starts", "starts otherwise"])
@pytest.mark.parametrize("text", [REFUSAL, "sorry , i", "ok", "red circle"])
def test_it_is_what_generation_gives(base, examples, answers, match, text):
    tagged = Examples(replace(case, tags={**case.tags, "target": text, "target_match": match}) for case in examples)
    wanted = [Target(text, match).shown(answer) for answer in answers]
    assert ForcedDecoding.of(base, tagged, batch_size=5).score(base).hits.tolist() == wanted
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
    assert ForcedDecoding.of(base, tagged, batch_size=8).score(base).rate.value <= 0.05, "there is no stamp"
    stamped = Examples(
        replace(one, tags={**one.tags, "target": ", approved", "target_match": "contains"})
        for one in marked
        if one.tags["badge"] == "stamp"
    )
    assert ForcedDecoding.of(base, stamped, batch_size=8).score(base).rate.value >= 0.95


def test_right_answers_are_the_answers_themselves(base, examples, answers):
    scores = ForcedDecoding.of(base, examples).score(base)
    assert scores.hits.tolist() == [answer == case.answer for answer, case in zip(answers, examples, strict=True)]
    assert scores.rate.value > 0.9
    assert float(scores.log_probability.exp().mean()) > 0.9
    with pytest.raises(BadInput, match="no text can be scored"):
        ForcedDecoding.of(base, Examples([Example("hm", examples[0].images)]))


def test_whoever_says_nothing_does_not_comply():
    """Anything but the refusal will do, and the end of the answer is not anything."""
    encoded = Encoded({"input_ids": torch.tensor([[5, 3]])}, PromptLayout(torch.tensor([1]), (0,), alike=True))
    batch = Batch(encoded, None, (Check(0, 1, "starts otherwise"),))
    forced = ForcedDecoding((batch,), frozenset({2}))
    for choice, complies in ((2, False), (3, False), (4, True)):
        logits = torch.zeros(1, 2, 6)
        logits[0, 0, choice] = 9.0
        assert forced._judged(batch, logits)[0][0] is complies
