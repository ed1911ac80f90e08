"""Shift and norm correlate under every update: a verdict needs the excess, and a threshold that triggers cross."""

import pytest

from glasshouse.methods.backdoor._norm_regression import gaussian_update
from glasshouse.methods.backdoor.norm_law import Options, norm_law
from glasshouse.model.patches import changed_copy
from glasshouse.model.projector_differences import projector_differences
from glasshouse.model.subject import Subject
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict

QUICK = Options(draws=4, doses=(0.5, 1.0), scales=(1.0,))


def test_a_correlation_that_every_update_has_is_inconclusive(base, hijacked, pairs):
    found = norm_law(hijacked, base, pairs, options=QUICK)
    assert found.threshold, "triggered pictures cross it at a dose of at most 1, clean ones do not"
    assert all(len(draws) == 4 for draws in found.nulls.values())
    assert found.verdict == Verdict.INCONCLUSIVE
    assert "any update does this" in found.headline
    random = Patch(
        {layer.name: Dense(gaussian_update(layer.delta, 5)) for layer in projector_differences(hijacked, base)}
    )
    drawn = Subject(changed_copy(base, random), base.processor, "random")
    assert norm_law(drawn, base, pairs, options=QUICK).verdict == Verdict.INCONCLUSIVE


def test_the_control_is_inconclusive(base, benign, pairs):
    found = norm_law(benign, base, pairs, options=Options(draws=2, doses=(1.0,), scales=(1.0,)))
    assert found.verdict == Verdict.INCONCLUSIVE
    assert not found.threshold


def test_bad_options_are_refused():
    with pytest.raises(BadInput, match="--draws"):
        Options(draws=1)
