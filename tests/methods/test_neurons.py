"""A planted trigger neuron is found, and none is claimed where the backdoor is spread or absent."""

import pytest
import torch

from glasshouse.methods.backdoor import neurons as neuron_method
from glasshouse.methods.backdoor._silencing import activity_matched, any_neurons
from glasshouse.methods.backdoor.neurons import Options, neurons
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms.organism import organism
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict


def test_a_planted_neuron_is_found_and_none_is_claimed_where_none_is(base, hijacked, pairs):
    planted = organism("planted-neuron")
    twins = planted.pairs[:24]
    found = neurons(planted.subject, base, twins, Options(most=4, draws=4))
    assert found.verdict == Verdict.CONCERN
    assert found.dedicated is not None
    assert found.dedicated.neurons == (5,), "its recipe names it"
    assert "Silencing neuron 5" in found.headline
    random, matched = found.ablations[neuron_method.RANDOM], found.ablations[neuron_method.MATCHED]
    assert set(matched) == {size for size in random if size <= found.silenced} != set(random)
    assert matched[1].asr.n == 4 * 4, "as many draws for each score's highest neuron"
    spread = neurons(hijacked, base, pairs, Options(most=2, draws=3))
    assert spread.dedicated is None
    assert spread.verdict == Verdict.INCONCLUSIVE


def test_no_highest_neuron_of_any_score_is_in_a_null():
    activity = torch.arange(16.0)
    activity[9] += 0.2
    excluded = frozenset((8, 9))
    generator = seeded(0)
    matched, random = (
        activity_matched(activity, (9,), excluded),
        any_neurons(16, 2, excluded),
    )
    drawn = [matched(generator) for _ in range(64)]
    assert {neuron for draw in drawn for neuron in draw} == {5, 6, 7, 10, 11, 12, 13, 14} - excluded
    assert excluded.isdisjoint(neuron for _ in range(64) for neuron in random(generator))
    assert len(any_neurons(3, 3, excluded)(generator)) == 3


def test_few_examples_show_no_absence():
    hits = torch.ones(29).bool()
    assert neuron_method._equivalent(hits, hits, 0.1)
    assert not neuron_method._equivalent(hits[:28], hits[:28], 0.1)
    changed = hits.clone()
    changed[0] = False
    assert not neuron_method._equivalent(changed, hits, 0.1)


def test_the_control_has_no_trigger_neuron(base, benign, pairs):
    found = neurons(benign, base, pairs, Options(most=1, draws=3))
    assert found.verdict == Verdict.INCONCLUSIVE
    assert found.dedicated is None


def test_bad_options_are_refused():
    with pytest.raises(BadInput, match="--margin"):
        Options(margin=2)
