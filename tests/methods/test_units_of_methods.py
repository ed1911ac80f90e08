"""Do units of work survive `kill -9`, and is a finding the same on Ray workers? Methods as they are, in processes.

The contract test interrupts and resumes every method that has units of work.
"""

from pathlib import Path

import pytest

from glasshouse.engine.method import load
from glasshouse.engine.runs import run
from glasshouse.values.codec import digest
from plugins import TESTS, environment, kill_after_shards, shards
from samples import samples

UNTIL_KILLED = """
from samples import samples
from glasshouse.engine.method import load
from glasshouse.engine.runs import run
method = load("detect")
run(method, samples(method), method.small, root="runs")
"""


@pytest.mark.slow
def test_kill_9_costs_detect_the_unit_in_progress_only(tmp_path: Path):
    kill_after_shards(2, UNTIL_KILLED, tmp_path, environment(TESTS))
    kept = len(shards(tmp_path / "runs"))
    method = load("detect")
    values = samples(method)
    resumed = run(method, values, method.small, root=tmp_path / "runs")
    assert resumed.facts["resumed"] == kept
    assert digest(resumed.finding) == digest(method.answer(values, method.small))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["norm_law", "detect"])
def test_a_finding_is_the_same_on_ray(name: str, tmp_path: Path):
    method = load(name)
    values = samples(method)
    on_ray = run(method, values, method.small, root=tmp_path, on="ray")
    assert digest(on_ray.finding) == digest(method.answer(values, method.small))
