"""A method that is killed after its first unit goes on from there, and its finding is the same."""

from pathlib import Path
from typing import Any

import pytest

from glasshouse.engine.method import Method, load
from glasshouse.engine.runs import run
from glasshouse.values.codec import digest
from glasshouse.values.findings import Finding

QUICK, SLOW = ("recovery", "neurons", "drift"), ("implant", "purify", "norm_law")
each_method = pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])


def samples(method: Method[Finding]) -> dict[str, Any]:
    """A small value for every input; the first model is another than the second."""
    numbers: dict[str, int] = {}
    values: dict[str, Any] = {}
    for each in method.inputs:
        number = numbers[each.kind.name] = numbers.get(each.kind.name, -1) + 1
        values[each.flag] = each.kind.sample(number, method.least)
    return values


def killed(what: str, done: int, total: int) -> None:
    """As progress: the process ends after the first unit."""
    raise KeyboardInterrupt


@each_method
def test_a_killed_run_goes_on_after_its_last_unit(name: str, tmp_path: Path):
    method = load(name)
    values = samples(method)
    with pytest.raises(KeyboardInterrupt):
        run(method, values, method.small, root=tmp_path, progress=killed)
    resumed = run(method, values, method.small, root=tmp_path)
    assert resumed.facts["resumed"] >= 1
    assert digest(resumed.finding) == digest(method.answer(values, method.small))


@pytest.mark.slow
def test_a_finding_is_the_same_on_ray(tmp_path: Path):
    method = load("norm_law")
    values = samples(method)
    there = run(method, values, method.small, root=tmp_path, on="ray")
    assert digest(there.finding) == digest(method.answer(values, method.small))
