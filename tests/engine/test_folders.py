"""A place to work in is had by one process at a time, by each in the end, and nothing of it is left behind."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glasshouse.engine import folders
from glasshouse.engine.folders import workplace
from glasshouse.values.errors import BadInput, Unwritable

HAMMER = """
import sys
from pathlib import Path
from glasshouse.engine.folders import workplace
for _ in range(4000):
    with workplace(Path(sys.argv[1]), sys.argv[2]) as work:
        pass
"""


@pytest.mark.parametrize("there", [True, False], ids=["a root that was there", "a root that comes and goes"])
def test_processes_that_come_and_go_do_not_take_the_ground_from_each_other(tmp_path: Path, there: bool):
    root = tmp_path if there else tmp_path / "above" / "runs"
    beside = [
        subprocess.Popen([sys.executable, "-c", HAMMER, root, key], stderr=subprocess.PIPE, text=True)
        for key in ("one", "two")
    ]
    assert [process.communicate(timeout=120)[1] for process in beside] == ["", ""]
    assert set(tmp_path.rglob("*")) <= {root, root.parent}


def test_a_folder_taken_away_between_two_steps_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, taken = Path.open, []

    def late(self: Path, *args, **kwargs):
        if len(taken) < 3:
            taken.append(self.parent)
            self.parent.rmdir()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", late)
    with workplace(tmp_path, "key") as work:
        assert work.is_dir()
    assert taken == [tmp_path / folders.HIDDEN] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_holder_took_away_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, removed = fcntl.flock, []

    def late(lock, how: int) -> None:
        real(lock, how)
        if not removed:
            removed.append(lock.name)
            os.unlink(lock.name)

    monkeypatch.setattr(fcntl, "flock", late)
    with workplace(tmp_path, "key"):
        assert removed
        with pytest.raises(BadInput, match="another process"), workplace(tmp_path, "key"):
            pass


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOTSUP], ids=["no locks", "not supported"])
def test_a_file_system_that_cannot_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int):
    def refuse(lock, how: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(Unwritable, match=rf"cannot lock files \({os.strerror(reason)}\); choose .* --runs"),
        workplace(tmp_path / "runs", "key"),
    ):
        pass
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("mine", [0, 1, 2])
def test_of_what_a_refused_question_had_to_make_nothing_is_left(tmp_path: Path, mine: int):
    (tmp_path / "n1" / "n2" if mine == 2 else tmp_path / "n1" if mine else tmp_path).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    assert len(before) == mine
    with pytest.raises(BadInput, match="take another"), workplace(tmp_path / "n1" / "n2" / "n3", "key"):
        raise BadInput("not this one; take another")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_place_of_the_hidden_folder_is_told(tmp_path: Path):
    (tmp_path / folders.HIDDEN).write_text("mine")
    with pytest.raises(Unwritable, match="choose another folder with --runs"), workplace(tmp_path, "key"):
        pass
    assert (tmp_path / folders.HIDDEN).read_text() == "mine"
