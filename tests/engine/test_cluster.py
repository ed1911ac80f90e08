"""Units on two Ray workers give what they give here; a worker that dies costs its unit, and nothing else changes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cluster_work
from glasshouse.data.examples import Examples
from glasshouse.engine import cluster
from glasshouse.engine.units import Workspace, executing, mapped, over_shards, working_in
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.organisms import seedling as grown
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput

UNITS = list(range(8))


@pytest.fixture(scope="module")
def workers() -> Iterator[cluster.RayExecutor]:
    """Two workers, shared by the tests of this file."""
    with cluster.ray_workers("ray", 2) as executor:
        yield executor


@pytest.fixture
def on_ray(workers: cluster.RayExecutor) -> Iterator[None]:
    """`mapped` runs on them: `ray_workers` joins what is there already."""
    with executing("ray"):
        yield


def counts(notes: Path) -> list[int]:
    """How often each unit ran."""
    return [len((notes / str(unit)).read_text().splitlines()) for unit in UNITS]


def test_the_same_result_as_here_to_the_last_bit(tmp_path: Path, seedling: Subject, squares: Examples, workers):
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(workers.threads)
    try:
        here = over_shards(cluster_work.score, squares, cluster_work.Scores, handles={"subject": seedling}, size=2)
    finally:
        torch.set_num_threads(torch_threads)
    with executing("ray"), working_in(Workspace(tmp_path)):
        there = over_shards(cluster_work.score, squares, cluster_work.Scores, handles={"subject": seedling}, size=2)
    with executing("ray"), working_in(Workspace(tmp_path)) as workspace:  # as a second process would
        again = over_shards(cluster_work.score, squares, cluster_work.Scores, handles={"subject": seedling}, size=2)
    assert here.values.tolist() == there.values.tolist() == again.values.tolist()
    assert set(there.opened) == {seedling.identity.weights}
    assert workspace.resumed == len(list(tmp_path.iterdir())) == 3


def test_a_subject_may_be_a_unit_and_one_in_memory_is_exported(on_ray):
    subject = open_subject(grown.model(), processor=grown.processor())
    subject.name = "in memory"
    assert mapped(cluster_work.weights_of, [subject], str) == [subject.identity.weights]


def test_a_worker_that_is_killed_costs_its_unit_only(tmp_path: Path, on_ray):
    results = mapped(cluster_work.noted, UNITS, int, handles={"notes": tmp_path, "dies_at": 3})
    assert results == [unit * unit for unit in UNITS]
    assert counts(tmp_path) == [2 if unit == 3 else 1 for unit in UNITS]


def test_results_are_kept_and_read_back(tmp_path: Path, on_ray):
    notes = tmp_path / "notes"
    notes.mkdir()
    with working_in(Workspace(tmp_path / "work")):
        mapped(cluster_work.noted, UNITS[:5], int, handles={"notes": notes})
    with working_in(Workspace(tmp_path / "work")):  # as a second process would
        assert mapped(cluster_work.noted, UNITS, int, handles={"notes": notes}) == [unit * unit for unit in UNITS]
    assert counts(notes) == [1] * len(UNITS)


def test_bad_input_stays_bad_input(on_ray):
    with pytest.raises(BadInput, match=r"^unit 0: a value, a place, a fix$"):
        mapped(cluster_work.refuse, [0], int)


def test_other_exceptions_say_where_they_were_raised(on_ray):
    with pytest.raises(ZeroDivisionError) as raised:
        mapped(cluster_work.divide, [2, 0], float)
    assert "in divide" in "".join(raised.value.__notes__)


def test_functions_of_no_module_travel_and_workers_have_the_threads_that_are_promised(on_ray, workers):
    assert mapped(lambda unit: cluster_work.threads(unit), [0], int) == [workers.threads]


def test_changes_in_force_are_refused(seedling: Subject, squares: Examples, on_ray):
    with (
        patched(seedling, Patch({})),
        pytest.raises(BadInput, match=r"1 edits or patches are in force.*leave out --on"),
    ):
        over_shards(cluster_work.score, squares, cluster_work.Scores, handles={"subject": seedling})


def test_modules_do_not_travel(seedling: Subject, on_ray):
    with pytest.raises(TypeError, match="pass its Subject in `handles`"):
        mapped(lambda unit, module: unit, [1], int, handles={"module": seedling.model})


def test_it_listens_on_the_loopback_interface_only(workers):
    """Whoever reaches a Ray port can run code."""
    assert {node["NodeManagerAddress"] for node in workers.ray.nodes()} == {"127.0.0.1"}


KILLED = """
import sys
from pathlib import Path
import cluster_work
from glasshouse.engine.units import Workspace, executing, mapped, working_in
notes = Path("notes"); notes.mkdir()
with executing("ray", workers=2), working_in(Workspace(Path("work"))):
    mapped(cluster_work.slowly, range(8), int, handles={"notes": notes.resolve(), "seconds": 0.5})
"""


@pytest.mark.slow  # a second cluster is started
def test_kill_9_of_the_driver_loses_no_finished_unit(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", KILLED], cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 300  # starting Ray takes minutes on a loaded machine
        while len(list(tmp_path.glob("work/*.safetensors"))) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = len(list(tmp_path.glob("work/*.safetensors")))
    assert 2 <= finished < 8
    with working_in(Workspace(tmp_path / "work")) as workspace:  # without Ray: the files are the same
        assert mapped(cluster_work.noted, UNITS, int, handles={"notes": tmp_path / "notes"}) == [u * u for u in UNITS]
    assert workspace.resumed == finished
