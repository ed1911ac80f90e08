"""A method that is killed after its first unit goes on from there, and its finding is the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from glasshouse.engine.method import Method, load
from glasshouse.engine.runs import run
from glasshouse.values.codec import digest
from glasshouse.values.findings import Finding

QUICK, SLOW = ("recovery", "neurons", "drift"), ("detect", "implant", "purify", "norm_law")
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


UNTIL_KILLED = """
from pathlib import Path
from test_units_of_methods import samples
from glasshouse.engine.method import load
from glasshouse.engine.runs import run
method = load("detect")
run(method, samples(method), method.small, root="runs")
"""


@pytest.mark.slow
def test_kill_9_costs_detect_the_unit_in_progress_only(tmp_path: Path):
    folders = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", UNTIL_KILLED], cwd=tmp_path, env={**os.environ, "PYTHONPATH": folders}
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("runs/.unfinished/*/*.safetensors"))) < 2:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = len(list(tmp_path.glob("runs/.unfinished/*/*.safetensors")))
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
