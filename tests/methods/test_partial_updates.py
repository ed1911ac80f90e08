"""Is an update the sum of its parts, and does an update without effect show nothing?"""

from dataclasses import replace

import pytest
import torch

from glasshouse.data.examples import Examples
from glasshouse.methods.backdoor._partial_updates import LayerUpdate, PartialUpdates
from glasshouse.methods.backdoor.recovery import recovery
from glasshouse.model.differences import WeightDifference
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy
from glasshouse.numerics.randomness import seeded
from glasshouse.numerics.spectra import singular_values
from glasshouse.organisms import world
from glasshouse.values.deltas import LowRank, Patch
from glasshouse.values.findings import Verdict


@pytest.fixture(scope="module")
def shown() -> Examples:
    return world.examples("test", 8, 3, kinds=("action", "caption"))


def test_an_update_is_the_sum_of_its_parts():
    delta = torch.randn(20, 12, generator=seeded(0))
    parts = LayerUpdate(WeightDifference("x.weight", "projector", torch.zeros(20, 12), delta))
    torch.testing.assert_close(parts.part(range(12)), delta, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.part(range(4)) + parts.part(range(4, 12)), delta, atol=1e-5, rtol=0)
    assert int((singular_values(parts.part([1, 5])) > 1e-4).sum()) == 2
    values = singular_values(delta)
    torch.testing.assert_close(singular_values(parts.random_directions(3, 0))[:3], values[:3], atol=1e-4, rtol=0)
    others = parts.later_directions(4, 0)
    assert float(others.norm()) == pytest.approx(float(values[:4].norm()), rel=1e-4)
    assert float((parts.part(range(4)).flatten() @ others.flatten()).abs()) < 1e-3


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
    bench = PartialUpdates(other, base, shown[:8], tagged, 8)
    whole = bench.outcome(bench.keep(lambda layer: layer.part(range(layer.count))), clean=True)
    assert whole.accuracy.value == bench.outcome(clean=True).accuracy.value
