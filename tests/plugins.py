"""Packages as pip would have installed them, and processes that use them until they are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import glasshouse

SOURCE, TESTS = Path(glasshouse.__file__).parents[1], Path(__file__).parent


def install(folder: Path, name: str, points: Mapping[str, Mapping[str, str]]) -> Path:
    """A distribution with these entry points, by group and name; the folder is to be put on the path."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [line for group, entries in points.items()
             for line in (f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items()))]  # fmt: skip
    (about / "entry_points.txt").write_text("\n".join(lines))
    return folder


def environment(*folders: Path, **settings: str) -> dict[str, str]:
    """Of a process that imports glasshouse, and packages in these folders with the modules beside this one."""
    path = os.pathsep.join(map(str, [SOURCE, *([*folders, TESTS] if folders else [])]))
    return {**os.environ, "PYTHONPATH": path, **settings}


def wait_for_shards(process: subprocess.Popen[str], root: Path, count: int) -> None:
    """Until so many shards are on disk."""
    deadline = time.monotonic() + 120
    while len(shards(root)) < count:
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def shards(root: Path) -> list[Path]:
    """Of unfinished runs in a folder."""
    return sorted(root.glob(".unfinished/*/*.safetensors"))


def kill_after_shards(count: int, code: str, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """The process that ran this code in the folder, with runs/ below it, and was killed after so many shards."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, text=True)
    try:
        wait_for_shards(process, folder / "runs", count)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return process
