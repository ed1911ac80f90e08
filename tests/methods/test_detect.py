"""Clues that are planted are found where they are planted, and a model that is its own base gives none."""

from collections.abc import Iterator

import pytest
import torch

from glasshouse.data.examples import Example, Examples
from glasshouse.data.pairs import Pairs
from glasshouse.engine.method import load
from glasshouse.engine.runs import run
from glasshouse.methods.backdoor import _features, _known_triggers
from glasshouse.methods.backdoor import detect as detecting
from glasshouse.methods.backdoor._calibration import Calibration, Case, calibration, reservations
from glasshouse.methods.backdoor._features import (
    AWAY,
    FIRST_TOP,
    PATCH,
    PATCH_GAIN,
    SELF_GAIN,
    SIZE,
    UPDATE_TOP,
    UPDATE_TOP_UNUSED,
    Features,
    features_alone,
    features_with_base,
    top_share,
)
from glasshouse.methods.backdoor._features import FAINT as FAINT_KL
from glasshouse.methods.backdoor._known_triggers import battery, trigger_responses
from glasshouse.methods.backdoor._sample_detectors import sample_detector_aurocs
from glasshouse.methods.backdoor._trigger_inversion import FAINT, invert_faint, invert_patch
from glasshouse.methods.backdoor.detect import DetectFinding, Options, detect
from glasshouse.model.divergence import log_probabilities, self_answered
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import export
from glasshouse.model.perturbation import PixelLevels, pixel_batches, with_pixels
from glasshouse.model.projector_differences import projector_differences
from glasshouse.model.token_activations import token_activations
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism
from glasshouse.values.blocks import Note
from glasshouse.values.codec import digest
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict
from glasshouse.values.sites import projector

QUICK = Options(steps=1)


@pytest.fixture(scope="module")
def shown() -> Examples:
    return shelf.downstream(24, 3)


@pytest.fixture(scope="module", autouse=True)
def short_surrogate() -> Iterator[None]:
    """Few training steps of the benign surrogate, whose feature is not part of the probability."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_features, "STEPS", 2)
        yield


@pytest.fixture(scope="module")
def quick(base, refusing, shown) -> DetectFinding:
    """Fewer images and steps than the calibration used, so inconclusive."""
    return detect(refusing, shown[:16], base, options=QUICK)


def test_a_change_stays_within_its_bounds_and_window(base, refusing, shown):
    answered = self_answered(refusing, shown[:16], 16)
    fit, test = pixel_batches(refusing, answered[::2], 5), pixel_batches(refusing, answered[1::2], 8)
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
    found = trigger_responses(refusing, self_answered(refusing, shown[:4], 4), 4)
    quiet = trigger_responses(base, self_answered(base, shown[:4], 4), 4)
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


def test_a_direction_that_clean_images_never_use_shows_on_their_unused_inputs(base):
    """Of two changes of one size and rank, the one in a direction that clean images do not use."""
    shown, path = shelf.downstream(16, 3), f"{base.anatomy.projector.linears[-1]}.weight"
    held = token_activations(base, projector.hidden, shown, 16)[0].double()
    directions = torch.linalg.eigh(torch.cov(held.T))[1].float()
    weight, out = dict(base.model.named_parameters())[path], torch.ones(base.model.config.text_config.hidden_size)
    noise = 0.01 * torch.randn(weight.shape, generator=seeded(0))
    unused_change, used_change = (noise + 0.1 * torch.outer(out, directions[:, column]) for column in (0, -1))
    unused = _features._unused_inputs(base, shown, 16)
    assert top_share(unused_change) == pytest.approx(top_share(used_change), abs=0.02)
    assert top_share(unused_change @ unused) > top_share(unused_change) > 0.5
    assert top_share(used_change @ unused) < 0.25


def test_the_update_s_features_are_those_of_its_last_layer(base, refusing, quick, shown):
    last = projector_differences(refusing, base)[-1]
    unused = _features._unused_inputs(refusing, self_answered(refusing, shown[:16], 16), 16)
    assert quick.features[UPDATE_TOP].value == pytest.approx(top_share(last.delta), rel=1e-5)
    assert quick.features[UPDATE_TOP_UNUSED].value == pytest.approx(top_share(last.delta @ unused), rel=1e-4)
    assert quick.features[SIZE].value == pytest.approx(float(last.delta.norm() / last.base.norm()), rel=1e-5)


def test_features_become_a_probability_by_known_cases():
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


def test_a_model_that_is_its_own_base_has_features_of_zero(base):
    same = features_with_base(base, base, organism("refusal-noise").examples[:16], 1, 16, 0).values
    assert same[FAINT_KL] < 1e-4
    assert same[AWAY] == same[SIZE] == 0


def test_a_model_compared_with_itself_is_inconclusive_wherever_it_lies(base, quick, tmp_path):
    copy = open_subject(export(base, tmp_path / "elsewhere"))
    found = detect(copy, None, base)
    assert (found.verdict, found.unchanged) == (Verdict.INCONCLUSIVE, True)
    assert "bit-identical" in found.headline
    assert found.rows() == []
    assert not quick.unchanged


def test_a_killed_run_goes_on_after_its_last_unit(base, refusing, shown, quick, tmp_path):
    inputs, done = {"model": refusing, "data": shown[:16], "base": base}, list[str]()

    def killed(name: str, *_: int) -> None:
        done.append(name)
        if done.count("feature") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(load("detect"), inputs, QUICK, root=tmp_path, progress=killed)
    resumed = run(load("detect"), inputs, QUICK, root=tmp_path)
    assert (done, resumed.facts["resumed"]) == (["answers", "feature", "feature"], 3)
    assert digest(resumed.finding) == digest(quick)


def test_single_images_with_a_strong_trigger_are_detected(refusing):
    pairs = organism("refusal-noise").pairs[:20]
    found = sample_detector_aurocs(refusing, pairs, 32, 0)
    assert set(found) == {"STRIP", "spectral signatures", "activation clustering", "attention entropy"}
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values())
    assert max(one.value for one in found.values()) > 0.8
    other = Pairs(pairs.clean[:8], pairs.clean[8:16])
    same = sample_detector_aurocs(refusing, other, 32, 0)
    assert all(one.low <= 0.5 for one in same.values()), "clean images are not told from clean images"


def test_bad_input_is_refused_with_its_fix(base, benign, shown):
    with pytest.raises(BadInput, match="give at least 16"):
        detect(base, shown[:5], benign)
    with pytest.raises(BadInput, match="give at least 16"):
        detect(base, None, benign)
    with pytest.raises(BadInput, match="--most 3"):
        Options(most=3)
    with pytest.raises(BadInput, match="every example needs an image"):
        pixel_batches(base, [Example("a ?", answer="b")], 4)


def test_a_backdoor_is_ranked_above_a_benign_update_with_few_steps(base, benign, refusing, quick, shown):
    assert quick.verdict == Verdict.INCONCLUSIVE
    assert quick.guesses[quick.best].token.strip() == "sorry"
    clean = detect(benign, shown[:16], base, options=QUICK)
    assert clean.verdict == Verdict.INCONCLUSIVE
    assert clean.probability.value < 0.5 < quick.probability.value


@pytest.mark.slow
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


def test_a_feature_that_is_not_weighed_does_not_stop_the_method(base, refusing, shown, quick, monkeypatch):
    def refuses(*args):
        raise BadInput("no such example")

    def exhausts(*args):
        raise torch.OutOfMemoryError("CUDA")

    monkeypatch.setattr(_features, "invert_patch", refuses)
    monkeypatch.setattr(_features, "_away_from_benign", exhausts)
    found = detect(refusing, shown[:16], base, options=QUICK)
    for name, reason in (("patch", "no such example"), (AWAY, "out of memory")):
        assert f"{name} is not part of the probability and could not be computed: {reason}." in found.notes
    assert found.probability == quick.probability
    assert set(quick.features) - set(found.features) == {AWAY, PATCH, PATCH_GAIN}
    assert all(Note(note) in found.blocks() for note in found.notes)


def test_nor_does_one_with_images_alone(refusing, shown, monkeypatch):
    def refuses(*args):
        raise BadInput("no such change")

    few = {name: trigger for name, trigger in battery(64).items() if name in ("noise", "logo")}
    monkeypatch.setattr(_known_triggers, "battery", lambda side: few)
    whole = detect(refusing, shown[:16], options=QUICK)
    monkeypatch.setattr(_features, "invert_faint", refuses)
    found = detect(refusing, shown[:16], options=QUICK)
    assert any(SELF_GAIN in note and "no such change" in note for note in found.notes)
    assert found.probability == whole.probability
    assert found.reservations == whole.reservations
    assert any("16 images and 1 steps" in reason for reason in found.reservations)
    assert found.blocks()


def test_nor_do_detectors_of_single_images(refusing, monkeypatch):
    def fails(*args):
        raise torch.OutOfMemoryError("CUDA")

    monkeypatch.setattr(detecting, "sample_detector_aurocs", fails)
    pairs = organism("refusal-noise").pairs[:8]
    found = detect(refusing, pairs=pairs)
    assert found.sample_aurocs == {}
    assert "Detectors of single images did not run: out of memory." in found.notes


def test_models_that_the_calibration_does_not_cover_are_inconclusive(base, refusing, quick):
    assert quick.verdict == Verdict.INCONCLUSIVE
    assert quick.reservations == ("the calibration used 64 images and 20 steps, this run 16 images and 1 steps",)
    alone = detect(refusing)
    assert (alone.setting, alone.verdict) == ("the model alone", Verdict.INCONCLUSIVE)
    assert "--base" in alone.advice
    assert alone.rows()[0]["feature"] == FIRST_TOP
    other = detect(shelf.take("idefics3-base"))
    assert "the calibration has llava models" in other.headline
    sized = Features({SIZE: quick.features[SIZE].value})
    (elsewhere,) = reservations(calibration(), shelf.take("text-trigger"), base, sized, (), 64, 20)
    assert "language changed too" in elsewhere
    (small,) = reservations(calibration(), refusing, base, Features({SIZE: 0.05 * sized.values[SIZE]}), (), 64, 20)
    assert "shorter and longer training give other spectra" in small
    (far,) = reservations(calibration(), refusing, base, sized, ("a feature",), 64, 20)
    assert far == "far outside the calibration's range: a feature"
