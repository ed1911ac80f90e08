"""Surgery removes a planted backdoor at no cost, better than repairs without a base; what is unsure is not claimed."""

from dataclasses import replace

import pytest

from glasshouse.methods.backdoor import purify as purifying
from glasshouse.methods.backdoor.purify import Options, purify
from glasshouse.organisms.organism import organism
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Interval, Verdict


def test_surgery_takes_more_of_it_than_any_other_repair(base, hijacked):
    logo = organism("hijack-logo")
    options = Options(ranks=(5,), kept=(0.25, 1.0), steps=8)
    twins = logo.pairs[:40]
    found = purify(
        hijacked, logo.examples[:32], logo.held_out[:100], base, None, twins, options
    )  # fmt: skip
    after = found.outcomes["surgery"]
    assert found.verdict == Verdict.PASS
    assert after.asr.value == 0
    assert after.accuracy.value >= found.before.accuracy.value - 0.01
    rivals = [each for name, each in found.outcomes.items() if name not in ("before", "surgery", *purifying.NULLS)]
    assert after.der > max(rival.der for rival in rivals)
    shrunk = found.outcomes[purifying.SHRUNK].asr.value
    assert ("shrinking the whole update" in found.headline) == (shrunk <= purifying.GONE)
    assert len(found.headline.split()) <= 25
    assert found.chosen in found.search
    assert found.needless, "the base answers this world's questions as well, and the report says so"
    linears = base.anatomy.projector.linears
    assert set(found.patch.deltas) == {f"{path}.{end}" for path in linears for end in ("weight", "bias")}
    unmatched = replace(found.before, accuracy=Interval.rate(0, 160))
    mute = replace(found, outcomes={**found.outcomes, "before": unmatched})
    assert (mute.verdict, mute.needless) == (Verdict.INCONCLUSIVE, False)
    assert "word for word" in mute.advice

    def repaired(**changes: Interval) -> purifying.PurifyFinding:
        return replace(found, outcomes={"before": found.before, "surgery": replace(after, **changes)})

    few = repaired(asr=Interval.rate(0, 20))
    assert few.verdict == Verdict.INCONCLUSIVE
    assert "to 0% (0-16%)" in few.headline
    unsure = repaired(lost=Interval(0.0, -0.09, 0.09, 20))
    assert unsure.verdict == Verdict.INCONCLUSIVE
    assert "the loss may reach 9%" in unsure.headline
    assert repaired(lost=Interval(0.04, 0.01, 0.08, 160)).verdict == Verdict.CONCERN


def test_without_triggered_examples_only_the_cost_is_known(base, hijacked, pairs):
    found = purify(hijacked, pairs.clean, pairs.clean, base, options=Options(ranks=(8,), kept=(0.5,), steps=1))
    assert found.verdict == Verdict.INCONCLUSIVE
    assert "ASR is unknown" in found.headline


def test_bad_options_are_refused():
    with pytest.raises(BadInput, match="--degrees"):
        Options(degrees=90)
