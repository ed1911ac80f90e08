"""Answers of two models side by side: planted flips are found, the nulls have none, images that are ignored show."""

from dataclasses import replace

import pytest
import torch

from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.methods.integrity._answers import MODEL, rounded
from glasshouse.methods.integrity.diff import Options, diff
from glasshouse.model.generation import answers
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy
from glasshouse.model.subject import Subject
from glasshouse.organisms import seedling as plain
from glasshouse.organisms.organism import organism
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict

SHORT = Options(max_new_tokens=4)


@pytest.fixture(scope="module")
def mixed(hijacked: Subject, base: Subject, pairs: Pairs) -> tuple[Examples, set[str]]:
    """Ten triggered examples whose answers flip and ten clean ones whose answers stay, and the ids of the former."""
    triggered = pairs.triggered[:10]
    assert all(first != second for first, second in _answered(hijacked, base, triggered))
    same = [first == second for first, second in _answered(hijacked, base, pairs.clean)]
    clean = [example for example, alike in zip(pairs.clean, same, strict=True) if alike][:10]
    return Examples([*triggered, *clean]), {twin.id for twin in triggered}


def _answered(first: Subject, second: Subject, examples: Examples) -> list[tuple[str, str]]:
    return list(zip(*(answers(subject, examples, 32, 16) for subject in (first, second)), strict=True))


@pytest.fixture(scope="module")
def finding(hijacked: Subject, base: Subject, mixed):
    return diff(hijacked, base, mixed[0], Options(gallery=3))


def test_every_planted_flip_is_found_and_none_in_the_nulls(finding, mixed):
    assert {name for name, pair in finding.answers.items() if pair.flipped} == mixed[1]
    assert len(mixed[1]) == 10
    assert [rate.value for arm, rate in finding.flipped.items() if arm != MODEL] == [0, 0]
    assert finding.headline.startswith("10 of 20 answers differ from the base's (50% (")
    assert set(list(finding.answers)[:10]) == mixed[1]  # they diverge most
    assert finding.beyond_nulls.value >= 0.5
    assert len(finding.images) == 3
    assert finding.verdict == Verdict.DESCRIBED


def test_shifts_are_what_both_models_score(finding, hijacked: Subject, base: Subject, mixed):
    for example in mixed[0][8:12]:
        pair = finding.answers[example.id]
        scored = [replace(example, answer=pair.base_answer)]
        tokens = len(base.prompts.answer_tokens(scored[0]))
        shift = float(hijacked.score(scored) - base.score(scored)) / tokens
        assert pair.log_probability_shift == pytest.approx(shift, abs=1e-4)


def test_a_model_beside_its_copy_differs_nowhere(seedling: Subject):
    copy = open_subject(changed_copy(seedling, Patch({})), processor=seedling.processor)
    finding = diff(copy, seedling, plain.examples(6), Options(batch_size=3, max_new_tokens=4))
    assert finding.flipped[MODEL].value == finding.divergence[MODEL].value == finding.beyond_nulls.value == 0
    assert {pair.log_probability_shift for pair in finding.answers.values()} == {0.0}
    assert finding.images == ()


def test_a_model_that_ignores_its_images_shows(seedling: Subject):
    weights = dict(seedling.model.named_parameters())
    linear = f"{seedling.anatomy.projector.linears[-1]}.weight"
    blind = changed_copy(seedling, Patch({linear: Dense(-weights[linear].detach())}))
    examples = plain.examples(4)
    examples = Examples([*examples[:3], replace(examples[3], images=())])
    finding = diff(open_subject(blind, processor=seedling.processor, unproved=True), seedling, examples, SHORT)
    seen, text = [finding.answers[example.id] for example in examples[:3]], finding.answers[examples[3].id]
    assert all(pair.image_effect == pytest.approx(0, abs=1e-6) for pair in seen)
    assert all(pair.base_image_effect > 1e-5 for pair in seen)
    assert (text.image_effect, text.base_image_effect) == (None, None)


def test_refusals_that_a_trigger_gains_are_counted(refusing: Subject, base: Subject):
    triggered = organism("refusal-noise").pairs.triggered[:6]
    refusal = triggered[0].tags["target"]
    finding = diff(refusing, base, triggered, Options(refusals=(refusal.upper(),)))
    expected = [text.startswith(refusal) for text in answers(refusing, triggered, 32, 6)]
    assert any(expected)
    assert finding.refusals["gained"].value == pytest.approx(sum(expected) / 6)
    assert finding.refusals["lost"].value == 0


def test_only_so_many_examples_are_compared_and_it_says_so(seedling: Subject):
    copy = open_subject(changed_copy(seedling, Patch({})), processor=seedling.processor)
    finding = diff(copy, seedling, plain.examples(5), Options(examples=3, max_new_tokens=2))
    assert len(finding.answers) == 3
    assert finding.notes == ("The first 3 of 5 examples were compared.",)


def test_the_base_in_eight_bits_has_linear_weights_rounded_and_no_others(seedling: Subject):
    patch = rounded(seedling)
    weights = dict(seedling.model.named_parameters())
    assert patch.deltas
    assert seedling.anatomy.language.unembedding not in {name.removesuffix(".weight") for name in patch.deltas}
    for name, delta in patch.deltas.items():
        weight = weights[name].detach()
        step = weight.abs().amax(1, keepdim=True) / 127
        error = (delta.onto(weight) - weight).abs()
        assert bool((error <= step / 2 + 1e-6).all())
        assert torch.equal(delta.onto(delta.onto(weight)), delta.onto(weight)) or error.max() > 0


def test_no_examples_to_compare_are_refused():
    with pytest.raises(BadInput, match="--examples 0: must be at least 1"):
        Options(examples=0)
