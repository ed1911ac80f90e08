"""Clues that are planted are found where they are planted, and a model that is its own base gives none."""

import pytest
import torch

from glasshouse.data.examples import Example, Examples
from glasshouse.data.pairs import Pairs
from glasshouse.methods.backdoor import _features
from glasshouse.methods.backdoor import detect as detecting
from glasshouse.methods.backdoor._calibration import Calibration, Case
from glasshouse.methods.backdoor._features import (
    AWAY,
    FIRST_TOP,
    PATCH,
    PATCH_GAIN,
    SELF_GAIN,
    SIZE,
    UPDATE_TOP,
    UPDATE_TOP_UNUSED,
    features_alone,
    features_with_base,
    top_share,
)
from glasshouse.methods.backdoor._features import FAINT as FAINT_KL
from glasshouse.methods.backdoor._known_triggers import battery, trigger_responses
from glasshouse.methods.backdoor._sample_detectors import sample_detector_aurocs
from glasshouse.methods.backdoor._trigger_inversion import FAINT, invert_faint, invert_patch
from glasshouse.methods.backdoor.detect import Options, detect
from glasshouse.model.divergence import log_probabilities, self_answered
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy, export
from glasshouse.model.perturbation import PixelLevels, pixel_batches, with_pixels
from glasshouse.model.projector_differences import projector_differences
from glasshouse.model.subject import Subject
from glasshouse.model.token_activations import token_activations
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism
from glasshouse.values.blocks import Note
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict
from glasshouse.values.sites import projector


@pytest.fixture(scope="module")
def refusing() -> Subject:
    return shelf.take("refusal-noise")


@pytest.fixture(scope="module")
def shown() -> Examples:
    return shelf.downstream(24, 3)


def test_a_change_stays_within_its_bounds_and_window(base, refusing, shown):
    answered = self_answered(refusing, shown, 24)
    fit, test = pixel_batches(refusing, answered[::2], 5), pixel_batches(refusing, answered[1::2], 12)
    before = weight_hash(refusing.model)

    def expected(encoded, pixels):
        return log_probabilities(base, [with_pixels(encoded, pixels)])

    found = invert_faint(refusing, expected, fit, test, 6, 0)
    levels = PixelLevels.of(refusing.processor, fit[0].inputs["pixel_values"])
    assert (found.perturbation.change.abs() <= FAINT * levels.level + 1e-6).all()
    assert found.path[-1] > found.path[0]
    assert refusing.prompts.tokenizer.decode([found.divergence.top_token.token]).strip() == "sorry"
    itself = invert_faint(base, expected, fit, test, 2, 0)
    assert float(itself.divergence.kl.max()) < 1e-5, "a model does not diverge from itself"
    window = invert_patch(refusing, expected, fit, test, 2, 0)
    assert window is not None
    assert window.perturbation.window is not None
    side = round(0.2 * min(fit[0].inputs["pixel_values"].shape[-2:]))
    assert int(window.perturbation.window[0].sum()) == side * side
    pixels = fit[0].inputs["pixel_values"]
    moved = window.perturbation.on(pixels, levels) != pixels
    assert not moved[:, ~window.perturbation.window].any()
    assert weight_hash(refusing.model) == before


def test_a_known_trigger_near_the_planted_one_reveals_the_target(refusing, base, shown):
    found = trigger_responses(refusing, self_answered(refusing, shown, 24), 6)
    quiet = trigger_responses(base, self_answered(base, shown, 24), 6)
    assert set(found) == set(battery(64))
    assert refusing.prompts.tokenizer.decode([found["noise"].top_token.token]).strip() == "sorry"
    assert max(r.top_token.gain for r in found.values()) > 0.6 > max(r.top_token.gain for r in quiet.values())


def test_the_model_alone_is_read_by_its_weights(base):
    path = base.anatomy.projector.linears[0]
    weight = dict(base.model.named_parameters())[f"{path}.weight"]
    values = torch.linalg.svdvals(weight.detach().float())
    assert features_alone(base).values[FIRST_TOP] == pytest.approx(float(values[0] / values.norm()), rel=1e-4)


def test_the_top_share_is_that_of_one_direction():
    one = torch.outer(torch.arange(1.0, 5.0), torch.tensor([1.0, -2.0, 0.5]))
    assert top_share(one) == pytest.approx(1, rel=1e-5)
    assert top_share(torch.diag(torch.tensor([3.0, 4.0, 0.0]))) == pytest.approx(0.8, rel=1e-5)
    assert top_share(torch.zeros(3, 2)) == 0


def test_a_direction_that_clean_pictures_never_use_shows_where_they_do_not_go(base):
    """Of two changes of one size and rank, the one that clean pictures do not feel is the quiet peak."""
    shown, path = shelf.downstream(16, 3), f"{base.anatomy.projector.linears[-1]}.weight"
    held = token_activations(base, projector.hidden, shown, 16)[0].double()
    directions = torch.linalg.eigh(torch.cov(held.T))[1].float()
    weight, out = dict(base.model.named_parameters())[path], torch.ones(base.model.config.text_config.hidden_size)
    noise = 0.01 * torch.randn(weight.shape, generator=seeded(0))
    found = {}
    for name, at in (("quiet", 0), ("loud", -1)):
        delta = Dense(noise + 0.1 * torch.outer(out, directions[:, at]))
        subject = open_subject(changed_copy(base, Patch({path: delta})), processor=base.processor)
        found[name] = features_with_base(subject, base, shown, 1, 16, 0).values
    assert found["quiet"][UPDATE_TOP] == pytest.approx(found["loud"][UPDATE_TOP], abs=0.02)
    assert found["quiet"][UPDATE_TOP_UNUSED] > found["quiet"][UPDATE_TOP] > 0.5
    assert found["loud"][UPDATE_TOP_UNUSED] < 0.25


def test_clues_become_a_probability_by_known_cases():
    noise = 0.3 * torch.randn(24, generator=seeded(0))
    cases = tuple(Case(f"{i}", i % 2 == 1, {"a": float(noise[i]) + 2 * (i % 2), "b": 0.0}) for i in range(24))
    known = Calibration(cases, "llava", 1_000_000, 20, 64, {})
    high, low = known.probability({"a": 2.0}), known.probability({"a": 0.0})
    assert high.low > 0.5 > low.high
    assert known.range("a", backdoored=True).low > known.range("a", backdoored=False).value
    assert known.range("c", backdoored=True) is None
    assert known.probability({"a": 1e9}) == known.probability({"a": max(case.features["a"] for case in cases)})
    assert known.outliers({"a": 1e9, "b": 0.0}) == ("a",)
    assert known.spread("b") == (0.0, 0.0)


def test_a_model_that_is_its_own_base_gives_no_clue(base):
    same = features_with_base(base, base, organism("refusal-noise").examples[:16], 1, 16, 0).values
    assert same[FAINT_KL] < 1e-4
    assert same[AWAY] == same[SIZE] == 0


def test_a_model_beside_itself_is_told_so_wherever_it_lies_and_does_not_pass(base, tmp_path):
    copy = open_subject(export(base, tmp_path / "elsewhere"))
    found = detect(copy, None, base)
    assert (found.verdict, found.unchanged) == (Verdict.INCONCLUSIVE, True)
    assert "bit-identical" in found.headline
    assert found.rows() == []
    other = detect(shelf.take("benign"), shelf.downstream(16, 3), base, options=Options(steps=1))
    assert not other.unchanged


def test_single_pictures_are_told_apart_where_the_trigger_is_loud(refusing):
    pairs = organism("refusal-noise").pairs[:32]
    found = sample_detector_aurocs(refusing, pairs, 32, 0)
    assert set(found) == {"STRIP", "spectral signatures", "activation clustering", "attention entropy"}
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values())
    assert max(one.value for one in found.values()) > 0.8
    same = sample_detector_aurocs(refusing, Pairs(pairs.clean, pairs.clean), 32, 0)
    assert all(one.low <= 0.5 for one in same.values()), "pictures cannot be told from themselves"


def test_bad_input_is_refused_with_its_cure(base, shown):
    with pytest.raises(BadInput, match="give at least 16"):
        detect(base, shown[:5], shelf.take("benign"))
    with pytest.raises(BadInput, match="give at least 16"):
        detect(base, None, shelf.take("benign"))
    with pytest.raises(BadInput, match="--most 3"):
        Options(most=3)
    with pytest.raises(BadInput, match="every example needs an image"):
        pixel_batches(base, [Example("a ?", answer="b")], 4)


def test_a_backdoor_is_found_with_its_target_and_a_benign_update_passed_over(base):
    """Shipped organisms: none of them is among those that the probability comes from."""
    found = detect(shelf.take("refusal-noise"), organism("refusal-noise").examples, base)
    assert (found.verdict, found.reservations) == (Verdict.CONCERN, ())
    assert found.guesses[found.best].token.strip() == "sorry"
    assert "sorry" in found.headline
    assert len(found.images) == 3
    quiet = detect(shelf.take("benign"), organism("benign").examples, base)
    assert quiet.verdict == Verdict.PASS
    assert quiet.headline.startswith("No trigger found")
    assert max(len(each.headline.split()) for each in (found, quiet)) <= 25
    assert quiet.probability.high < 0.5 < found.probability.low


@pytest.mark.parametrize(
    ("problem", "told"),
    [(BadInput("no such lesson"), "no such lesson"), (torch.OutOfMemoryError("CUDA"), "out of memory")],
    ids=lambda one: type(one).__name__,
)
def test_a_clue_that_is_not_weighed_costs_no_answer(base, refusing, shown, monkeypatch, problem, told):
    def fails(*args):
        raise problem

    whole = detect(refusing, shown[:16], base, options=Options(steps=1))
    monkeypatch.setattr(_features, "invert_patch", fails)
    monkeypatch.setattr(_features, "_away_from_benign", fails)
    found = detect(refusing, shown[:16], base, options=Options(steps=1))
    assert [note for note in found.notes if note.endswith(f": {told}.")] == [
        f"{name} is not part of the probability and could not be computed: {told}." for name in ("patch", AWAY)
    ]
    assert found.probability == whole.probability
    assert set(whole.features) - set(found.features) == {AWAY, PATCH, PATCH_GAIN}
    assert all(Note(note) in found.blocks() for note in found.notes)


def test_nor_does_one_with_pictures_alone(refusing, shown, monkeypatch):
    def fails(*args):
        raise BadInput("no such change")

    whole = detect(refusing, shown[:16], options=Options(steps=1))
    monkeypatch.setattr(_features, "invert_faint", fails)
    found = detect(refusing, shown[:16], options=Options(steps=1))
    assert any(SELF_GAIN in note and "no such change" in note for note in found.notes)
    assert found.probability == whole.probability
    assert found.reservations == whole.reservations
    assert any("16 images and 1 steps" in why for why in found.reservations)
    assert found.blocks()


def test_detectors_of_single_pictures_cost_no_answer_either(refusing, monkeypatch):
    def fails(*args):
        raise torch.OutOfMemoryError("CUDA")

    monkeypatch.setattr(detecting, "sample_detector_aurocs", fails)
    pairs = organism("refusal-noise").pairs[:8]
    found = detect(refusing, clean=pairs.clean, triggered=pairs.triggered)
    assert found.sample_aurocs == {}
    assert "Detectors of single images did not run: out of memory." in found.notes


def test_what_the_known_organisms_do_not_speak_for_is_inconclusive(base, refusing):
    shown = organism("refusal-noise").examples
    fewer = detect(refusing, shown[:16], base, options=Options(steps=1))
    assert fewer.verdict == Verdict.INCONCLUSIVE
    assert fewer.reservations == ("the calibration used 64 images and 20 steps, this run 16 images and 1 steps",)
    alone = detect(refusing)
    assert (alone.setting, alone.verdict) == ("the model alone", Verdict.INCONCLUSIVE)
    assert "--base" in alone.advice
    assert alone.rows()[0]["feature"] == FIRST_TOP
    other = detect(shelf.take("idefics3-base"))
    assert "the calibration has llava models" in other.headline
    elsewhere = detect(shelf.take("text-trigger"), shown[:16], base, options=Options(steps=1))
    assert any("language changed too" in why for why in elsewhere.reservations)
    part = {layer.name: Dense(-0.95 * layer.delta) for layer in projector_differences(refusing, base)}
    barely = Subject(changed_copy(refusing, Patch(part)), base.processor, "a short tune")
    moved = detect(barely, shown[:16], base, options=Options(steps=1)).reservations
    assert any("shorter and longer training give other spectra" in why for why in moved)
