"""Clues that are planted are found where they are planted, and a model that is its own base gives none."""

import pytest
import torch

from glasshouse.data.examples import Example, Examples
from glasshouse.methods.backdoor import _clues
from glasshouse.methods.backdoor import detect as detecting
from glasshouse.methods.backdoor._calibration import Calibration, Case
from glasshouse.methods.backdoor._changed import changed
from glasshouse.methods.backdoor._clues import alone, peak, with_base
from glasshouse.methods.backdoor._inversion import FAINT, Levels, faint, mean_and_std, perturbed, windowed
from glasshouse.methods.backdoor._probes import battery, probed
from glasshouse.methods.backdoor._readings import Apart, answering_itself, prepared, read, with_pixels
from glasshouse.methods.backdoor._samples import sample_detectors
from glasshouse.methods.backdoor._shift import tokens
from glasshouse.methods.backdoor.detect import Options, detect
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy, export
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism
from glasshouse.values.blocks import Note, Table
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


def test_readings_are_apart_where_one_token_differs():
    same = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    other = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.6, 0.2, 0.2]]))
    found = Apart.of([same, same], [other, same])
    expected = 0.2 * torch.log(torch.tensor(0.2 / 0.6)) + 0.6 * torch.log(torch.tensor(0.6 / 0.2))
    torch.testing.assert_close(found.divergence, torch.tensor([float(expected), 0.0]))
    gained, token = found.consistency
    assert (gained, token) == (pytest.approx(0.2), 2)


def test_models_of_other_words_are_not_set_side_by_side():
    with pytest.raises(BadInput, match="3 words and the other 4"):
        Apart.of([torch.zeros(2, 3)], [torch.zeros(2, 4)])


def test_a_change_stays_within_its_bounds_and_window(base, refusing, shown):
    asked = answering_itself(refusing, shown, 24)
    fit, test = prepared(refusing, asked[::2], 5), prepared(refusing, asked[1::2], 12)
    before = weight_hash(refusing.model)

    def expected(encoded, pixels):
        return read(base, with_pixels(encoded, pixels))

    found = faint(refusing, expected, fit, test, 6, 0)
    scale = Levels.of(refusing.processor, fit[0].inputs["pixel_values"])
    assert (found.change.abs() <= FAINT * scale.level + 1e-6).all()
    assert found.path[-1] > found.path[0]
    assert refusing.prompts.tokenizer.decode([found.apart.consistency[1]]).strip() == "sorry"
    itself = faint(base, expected, fit, test, 2, 0)
    assert float(itself.apart.divergence.max()) < 1e-5, "a model never leaves itself behind"
    window = windowed(refusing, expected, fit, test, 2, 0)
    assert window is not None
    assert window.window is not None
    side = round(0.2 * min(fit[0].inputs["pixel_values"].shape[-2:]))
    assert int(window.window[0].sum()) == side * side
    pixels = fit[0].inputs["pixel_values"]
    moved = perturbed(pixels, window.change, window.window, scale) != pixels
    assert not moved[:, ~window.window].any()
    assert weight_hash(refusing.model) == before


def test_a_known_stamp_near_the_trigger_gives_the_target_away(refusing, base, shown):
    found = probed(refusing, answering_itself(refusing, shown, 24), 6)
    quiet = probed(base, answering_itself(base, shown, 24), 6)
    assert set(found) == set(battery(64))
    assert refusing.prompts.tokenizer.decode([found["noise"].token]).strip() == "sorry"
    assert max(one.consistency for one in found.values()) > 0.6 > max(one.consistency for one in quiet.values())


def test_the_model_alone_is_read_by_its_weights(base):
    path = base.anatomy.projector.linears[0]
    weight = dict(base.model.named_parameters())[f"{path}.weight"]
    values = torch.linalg.svdvals(weight.detach().float())
    assert alone(base).numbers["first"] == pytest.approx(float(values[0] / values.norm()), rel=1e-4)


def test_a_peak_is_the_share_of_one_direction():
    one = torch.outer(torch.arange(1.0, 5.0), torch.tensor([1.0, -2.0, 0.5]))
    assert peak(one) == pytest.approx(1, rel=1e-5)
    assert peak(torch.diag(torch.tensor([3.0, 4.0, 0.0]))) == pytest.approx(0.8, rel=1e-5)
    assert peak(torch.zeros(3, 2)) == 0


def test_a_direction_that_clean_pictures_never_use_shows_where_they_do_not_go(base):
    """Of two changes of one size and rank, the one that clean pictures do not feel is the quiet peak."""
    shown, path = shelf.downstream(16, 3), f"{base.anatomy.projector.linears[-1]}.weight"
    held = tokens(base, projector.hidden, shown, 16)[0].double()
    directions = torch.linalg.eigh(torch.cov(held.T))[1].float()
    weight, out = dict(base.model.named_parameters())[path], torch.ones(base.model.config.text_config.hidden_size)
    noise = 0.01 * torch.randn(weight.shape, generator=seeded(0))
    found = {}
    for name, at in (("quiet", 0), ("loud", -1)):
        delta = Dense(noise + 0.1 * torch.outer(out, directions[:, at]))
        subject = open_subject(changed_copy(base, Patch({path: delta})), processor=base.processor)
        found[name] = with_base(subject, base, shown, 1, 16, 0).numbers
    assert found["quiet"]["peak"] == pytest.approx(found["loud"]["peak"], abs=0.02)
    assert found["quiet"]["quiet peak"] > found["quiet"]["peak"] > 0.5
    assert found["loud"]["quiet peak"] < 0.25


def test_clues_become_a_probability_by_known_cases():
    noise = 0.3 * torch.randn(24, generator=seeded(0))
    cases = tuple(Case(f"{i}", i % 2 == 1, {"a": float(noise[i]) + 2 * (i % 2), "b": 0.0}) for i in range(24))
    known = Calibration(cases, "llava", 1_000_000, 20, 64, {})
    high, low = known.probability({"a": 2.0}), known.probability({"a": 0.0})
    assert high.low > 0.5 > low.high
    assert known.range("a", backdoored=True).low > known.range("a", backdoored=False).value
    assert known.range("c", backdoored=True) is None
    assert known.probability({"a": 1e9}) == known.probability({"a": max(case.clues["a"] for case in cases)})
    assert known.far({"a": 1e9, "b": 0.0}) == ("a",)
    assert known.spread("b") == (0.0, 0.0)


def test_a_model_that_is_its_own_base_gives_no_clue(base):
    same = with_base(base, base, organism("refusal-noise").examples[:16], 1, 16, 0).numbers
    assert same["faint"] < 1e-4
    assert same["steep"] == same["size"] == 0


def test_a_model_beside_itself_is_told_so_wherever_it_lies_and_does_not_pass(base, tmp_path):
    copy = open_subject(export(base, tmp_path / "elsewhere"))
    found = detect(copy, None, base)
    assert (found.verdict, found.unchanged) == (Verdict.INCONCLUSIVE, True)
    assert "all 3 hashes" in found.headline
    assert found.blocks()[0].rows[0][0] == "weights"
    other = detect(shelf.take("benign"), shelf.downstream(16, 3), base, options=Options(steps=1))
    assert not other.unchanged


def test_single_pictures_are_told_apart_where_the_trigger_is_loud(refusing):
    pairs = organism("refusal-noise").pairs[:32]
    clean, triggered = pairs.clean, pairs.triggered
    found = sample_detectors(refusing, clean, triggered, 32, 0)
    assert set(found) == {"STRIP", "spectral signatures", "activation clustering", "attention entropy"}
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values())
    assert max(one.value for one in found.values()) > 0.8
    same = sample_detectors(refusing, clean, clean, 32, 0)
    assert all(one.low <= 0.5 for one in same.values()), "pictures cannot be told from themselves"


def test_bad_input_is_refused_with_its_cure(base, shown):
    with pytest.raises(BadInput, match="give at least 16"):
        detect(base, shown[:5], shelf.take("benign"))
    with pytest.raises(BadInput, match="give at least 16"):
        detect(base, None, shelf.take("benign"))
    with pytest.raises(BadInput, match="--most 3"):
        Options(most=3)
    with pytest.raises(BadInput, match="has an image"):
        answering_itself(base, Examples([Example("a ?")]), 4)


def test_a_backdoor_is_found_with_its_target_and_a_benign_update_passed_over(base):
    """Shipped organisms: none of them is among those that the probability comes from."""
    found = detect(shelf.take("refusal-noise"), organism("refusal-noise").examples, base)
    assert (found.verdict, found.reservations) == (Verdict.CONCERN, ())
    assert found.guesses[found.best].word.strip() == "sorry"
    assert "sorry" in found.headline
    assert len(found.pictures) == 3
    quiet = detect(shelf.take("benign"), organism("benign").examples, base)
    assert quiet.verdict == Verdict.PASS
    assert quiet.probability.high < 0.5 < found.probability.low


@pytest.mark.parametrize(
    ("problem", "told"),
    [(BadInput("no such lesson"), "no such lesson"), (torch.OutOfMemoryError("CUDA"), "there was no memory for it")],
    ids=lambda one: type(one).__name__,
)
def test_a_clue_that_is_not_weighed_costs_no_answer(base, refusing, shown, monkeypatch, problem, told):
    def fails(*args):
        raise problem

    whole = detect(refusing, shown[:16], base, options=Options(steps=1))
    monkeypatch.setattr(_clues, "windowed", fails)
    monkeypatch.setattr(_clues, "_steep", fails)
    found = detect(refusing, shown[:16], base, options=Options(steps=1))
    assert found.unread == {"window": told, "steep": told}
    assert found.probability == whole.probability
    assert set(whole.clues) - set(found.clues) == {"steep", "window", "window agreement"}
    assert any("steep, which is not weighed" in block.text for block in found.blocks() if isinstance(block, Note))


def test_nor_does_one_with_pictures_alone(refusing, shown, monkeypatch):
    def fails(*args):
        raise BadInput("no such change")

    whole = detect(refusing, shown[:16], options=Options(steps=1))
    monkeypatch.setattr(_clues, "faint", fails)
    found = detect(refusing, shown[:16], options=Options(steps=1))
    assert found.unread == {"own agreement": "no such change"}
    assert found.probability == whole.probability
    assert found.reservations == whole.reservations
    assert any("16 and 1" in why for why in found.reservations)
    assert found.blocks()


def test_detectors_of_single_pictures_cost_no_answer_either(refusing, monkeypatch):
    def fails(*args):
        raise torch.OutOfMemoryError("CUDA")

    monkeypatch.setattr(detecting, "sample_detectors", fails)
    pairs = organism("refusal-noise").pairs[:8]
    found = detect(refusing, clean=pairs.clean, triggered=pairs.triggered)
    assert (found.samples, found.untried) == ({}, "there was no memory for them")


def test_every_colour_has_its_own_bounds(base):
    scale = Levels.of(base.processor, torch.zeros(2, 3, 4, 4))
    mean, std = mean_and_std(base.processor)
    white = ((1 - mean) / std).view(3, 1, 1)
    assert torch.equal(scale.high, white)
    assert torch.equal(perturbed(torch.zeros(1, 3, 4, 4), torch.full((3, 4, 4), 99.0), None, scale)[0, :, 0, 0],
                       white.flatten())  # fmt: skip
    flat = Levels.of(base.processor, torch.zeros(3, 8, 12))
    assert flat.high == white.max(), "patches in rows have no colours apart"


def test_what_the_known_organisms_do_not_speak_for_is_inconclusive(base, refusing):
    shown = organism("refusal-noise").examples
    fewer = detect(refusing, shown[:16], base, options=Options(steps=1))
    assert fewer.verdict == Verdict.INCONCLUSIVE
    assert fewer.reservations == (
        "the known organisms were read with 64 pictures and 20 steps, this one with 16 and 1",
    )
    alone = detect(refusing)
    assert (alone.setting, alone.verdict) == ("the model alone", Verdict.INCONCLUSIVE)
    assert "--base" in alone.advice
    assert next(block for block in alone.blocks() if isinstance(block, Table)).rows[0][0] == "first"
    other = detect(shelf.take("idefics3-base"))
    assert "the known organisms are llava models" in other.headline
    elsewhere = detect(shelf.take("text-trigger"), shown[:16], base, options=Options(steps=1))
    assert any("language too" in why for why in elsewhere.reservations)
    part = {one.name: Dense(-0.95 * one.delta) for one in changed(refusing, base)}
    barely = Subject(changed_copy(refusing, Patch(part)), base.processor, "a short tune")
    moved = detect(barely, shown[:16], base, options=Options(steps=1)).reservations
    assert any("shorter and longer tuning leaves other spectra" in why for why in moved)
