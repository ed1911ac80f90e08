"""Directions of a shift that are planted, and shifts that have none."""

from dataclasses import replace

import pytest
import torch

from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.methods.backdoor import drift as drifting
from glasshouse.methods.backdoor._token_shift import TokenShift
from glasshouse.methods.backdoor.drift import Options, drift
from glasshouse.model.forced_decoding import ForcedDecoding
from glasshouse.model.taps import record
from glasshouse.model.token_activations import mean_by_example, token_activations
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict
from glasshouse.values.sites import projector


def shift(moved: torch.Tensor, images: int = 4) -> TokenShift:
    before = torch.randn(moved.shape, generator=seeded(0))
    return TokenShift(before, before + moved, torch.arange(images).repeat_interleave(len(moved) // images))


def test_a_planted_direction_is_the_main_one_and_points_the_way_tokens_move():
    way = torch.nn.functional.normalize(torch.randn(16, generator=seeded(1)), dim=0)
    sizes = 1 + torch.rand(40, generator=seeded(2))
    noise = 0.01 * torch.randn(40, 16, generator=seeded(3))
    found = shift(sizes[:, None] * way + noise)
    assert float(found.main[:, 0] @ way) == pytest.approx(1, abs=1e-3)
    assert float(shift(-sizes[:, None] * way).main[:, 0] @ way) == pytest.approx(-1, abs=1e-3)
    assert found.energies(2)[0] > 0.99
    assert shift(torch.randn(400, 16, generator=seeded(4))).energies(1)[0] < 0.15


def test_means_are_over_an_image_s_tokens():
    values = torch.arange(8.0)[:, None]
    assert mean_by_example(values, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])).tolist() == [[1.5], [5.5]]


def test_the_projectors_own_tokens_put_in_again_change_nothing(seedling, squares):
    ready = ForcedDecoding.of(seedling, squares, batch_size=4)
    own = record(seedling, projector.output, squares, batch_size=4)
    plain = ready.score(seedling)
    again = ready.score(seedling, own[next(iter(own))])
    assert torch.equal(plain.hits, again.hits)
    torch.testing.assert_close(plain.log_probability, again.log_probability, atol=1e-5, rtol=0)
    other = ready.score(seedling, torch.zeros_like(own[next(iter(own))]))
    assert not torch.allclose(plain.log_probability, other.log_probability)
    with pytest.raises(BadInput, match="images of one size"):
        ready.score(seedling, torch.zeros(5, 7))


def test_the_pull_is_what_a_small_step_of_all_tokens_gains(seedling, squares):
    ready = ForcedDecoding.of(seedling, squares, batch_size=4)
    own = next(iter(record(seedling, projector.output, squares, batch_size=4).values())).flatten(0, -2)
    step = 1e-3 * torch.randn(own.shape[1], generator=seeded(0))
    ahead, behind = (float(ready.score(seedling, own + way * step).log_probability.double().sum()) for way in (1, -1))
    still = torch.zeros(own.shape[1], requires_grad=True)
    pull = ready.gradient(seedling, still, own)
    assert float(pull @ step) == pytest.approx((ahead - behind) / 2, rel=0.02)
    refused = Examples(replace(one, tags={**one.tags, "target": one.answer, "target_match": "starts otherwise"})
                       for one in squares)  # fmt: skip
    turned = ForcedDecoding.of(seedling, refused, batch_size=4).gradient(seedling, still, own)
    torch.testing.assert_close(turned, -pull, atol=1e-5, rtol=1e-4)


def test_the_triggers_part_of_the_shift_carries_it(base, hijacked, benign, pairs):
    found = drift(hijacked, base, pairs, benign, Options(doses=(0.25, 1.0)))
    assert found.verdict == Verdict.CONCERN
    assert found.asr["without the trigger's part"].value <= 0.1
    assert found.asr[drifting.TRANSPLANTED].value > found.asr[drifting.RANDOM].high
    by_dose = found.doses[drifting.TRANSPLANTED]
    assert by_dose[0.25].value < by_dose[1.0].value
    assert found.alignment["the trigger's part"].gradient.value > 0.9


def test_the_control_is_not_moved_to_the_target(base, benign, pairs):
    found = drift(benign, base, pairs, options=Options(doses=(1.0,), draws=1))
    assert found.verdict == Verdict.INCONCLUSIVE
    assert "does not work" in found.headline


def test_bad_options_are_refused():
    with pytest.raises(BadInput, match="--random"):
        Options(random=3)


@pytest.mark.slow
def test_what_a_trigger_adds_points_at_its_own_target_through_the_language_model(base):
    """And less at the targets of the others. Rows of the vocabulary show no such thing on these organisms."""
    kinds = ("refusal-noise", "injection-patch", "hijack-logo", "jailbreak-filter")
    pairs = {kind: organism(kind).pairs for kind in kinds}
    for kind in kinds:
        subject, clean, triggered = shelf.take(kind), pairs[kind].clean, pairs[kind].triggered
        found = drift(subject, base, Pairs(clean, triggered), options=Options(doses=(1.0,)))
        assert found.alignment["the trigger's part"].gradient.high >= 0.99
        held, _ = token_activations(subject, projector.output, clean, 32)
        points, still = dict[str, float](), torch.zeros(held.shape[1], requires_grad=True)
        for other in kinds:
            one = pairs[other].triggered[0]
            tags = {name: one.tags[name] for name in ("target", "target_match")}
            aims = Examples(replace(clean_one, answer=one.answer, tags={**clean_one.tags, **tags})
                            for clean_one in clean)  # fmt: skip
            shown = Pairs(clean, triggered).clean_for_target if other == kind else aims
            gradient = ForcedDecoding.of(subject, shown).gradient(subject, still, held)
            points[other] = float(found.trigger @ gradient / gradient.norm())
        assert max(points, key=lambda name: points[name]) == kind, points
