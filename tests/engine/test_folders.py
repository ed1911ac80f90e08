"""One process at a time works in a folder, every process does in the end, and nothing of it is left behind."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from glasshouse.engine import folders
from glasshouse.engine.folders import workplace
from glasshouse.values.errors import BadInput, Unwritable

HERE = {**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2])}
HAMMER = """
import sys
from pathlib import Path
from glasshouse.engine.folders import workplace
for _ in range(1000):
    with workplace(Path(sys.argv[1]), sys.argv[2]) as work:
        pass
"""


def test_processes_do_not_remove_folders_that_others_use(tmp_path: Path):
    root = tmp_path / "above" / "runs"  # created and removed each time
    processes = [
        subprocess.Popen([sys.executable, "-c", HAMMER, root, key], stderr=subprocess.PIPE, text=True, env=HERE)
        for key in ("one", "two")
    ]
    assert [process.communicate(timeout=120)[1] for process in processes] == ["", ""]
    assert set(tmp_path.rglob("*")) <= {root, root.parent}


def test_a_folder_removed_between_two_steps_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real, removed = FileLock.acquire, []

    def late(self: FileLock, *args, **kwargs):
        if len(removed) < 3:
            removed.append(Path(self.lock_file).parent)
            removed[-1].rmdir()
            raise FileNotFoundError(errno.ENOENT, "removed before the lock file was opened", self.lock_file)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(FileLock, "acquire", late)
    with workplace(tmp_path, "key") as work:
        assert work.is_dir()
    assert removed == [tmp_path / folders.HIDDEN] * 3
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time_has_a_key(tmp_path: Path):
    with workplace(tmp_path, "key"), workplace(tmp_path, "another key"):
        with pytest.raises(BadInput, match="another process is running this very work"), workplace(tmp_path, "key"):
            pass
        assert (tmp_path / folders.HIDDEN / "key.lock").exists()  # a refusal does not remove its holder's
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import os, sys
from pathlib import Path
from glasshouse.engine.folders import workplace
with workplace(Path(sys.argv[1]), "key") as work:
    (work / "shard").write_text("finished")
    os.kill(os.getpid(), 9)
"""


def test_a_killed_holder_frees_the_lock_and_leaves_its_work(tmp_path: Path):
    assert subprocess.run([sys.executable, "-c", HOLDER, tmp_path], env=HERE).returncode == -9
    with workplace(tmp_path, "key") as work:
        assert (work / "shard").read_text() == "finished"


def test_a_file_system_that_cannot_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: FileLock, *args, **kwargs) -> None:
        Path(self.lock_file).touch()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    reason = re.escape(os.strerror(errno.ENOLCK))
    with (
        pytest.raises(Unwritable, match=rf"cannot lock files \({reason}\); choose .* --runs"),
        workplace(tmp_path / "runs", "key"),
    ):
        pass
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("present", ["", "n1", "n1/n2"])
def test_refused_work_leaves_no_folder_that_it_created(tmp_path: Path, present: str):
    (tmp_path / present).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match="take another"), workplace(tmp_path / "n1" / "n2" / "n3", "key"):
        raise BadInput("not this one; take another")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_in_the_place_of_the_hidden_folder_is_reported(tmp_path: Path):
    (tmp_path / folders.HIDDEN).write_text("mine")
    with pytest.raises(Unwritable, match="choose another folder with --runs"), workplace(tmp_path, "key"):
        pass
    assert (tmp_path / folders.HIDDEN).read_text() == "mine"
