"""How the command ends: every mishap has a status of its own that is no verdict, and a line that says what to do."""

import ast
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest

import glasshouse as gh
import plugin_method
from glasshouse import cli
from glasshouse.engine.runs import Run
from hostile import controls
from plugins import SOURCE, environment, wait_for_shards


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five prompts."""
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"prompt": "a" * number}) + "\n" for number in range(1, 6)))
    return file


def process(*words: object, cwd: Path, packages: Path | None = None, **settings) -> subprocess.Popen:
    """The command as a process of its own."""
    variables = environment(*filter(None, [packages]), **settings.pop("env", {}))
    variables.pop("PYTHONUNBUFFERED", None)  # users have it unset
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    command = [sys.executable, "-m", "glasshouse", *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, env=variables, text=True, **pipes)


def ended(running: subprocess.Popen) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=120)
    return running.returncode, out or "", err or ""


def written_to(stream: TextIO, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The status of the command when its output goes there, in this process."""
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    return int(exit_.value.code or 0)


def test_a_run_prints_its_json_and_not_a_word_more(tmp_path: Path, data: Path):
    words = ("run", "lens", "--model", "organism:seedling", "--data", data, "--json")
    status, out, err = ended(process(*words, cwd=tmp_path))
    assert (status, err) == (0, "")
    assert json.loads(out)["verdict"] == "described"


def test_the_version(command):
    assert command("--version").out == f"glasshouse {gh.__version__}\n"


def test_a_reader_that_left_is_neither_an_error_nor_a_verdict(tmp_path: Path):
    read, write = os.pipe()
    os.close(read)
    listing = process("list", cwd=tmp_path, stdout=write)
    refused = process("divine", cwd=tmp_path, stdout=write, stderr=write)
    os.close(write)
    assert ended(listing) == ended(refused) == (141, "", "")


NO_ROOM = "glasshouse: the output cannot be written (No space left on device); make room, or write it elsewhere\n"


def deserted() -> TextIO:
    """A pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


@pytest.mark.parametrize("words", [("report", "RUN"), ("report", "RUN", "--json"), ("report", "--help")], ids=" ".join)
@pytest.mark.parametrize(
    ("stream", "status", "told"), [(deserted, 141, ""), (partial(open, "/dev/full", "w"), 74, NO_ROOM)],
    ids=["a reader that left", "a full disk"],
)  # fmt: skip
def test_output_that_nobody_gets_has_its_own_status(
    finished: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words, stream, status, told
):
    names = (finished.folder if word == "RUN" else word for word in words)
    with stream() as output:
        assert written_to(output, monkeypatch, *names) == status
    assert capsys.readouterr().err == told


def test_a_full_or_closed_output_is_one_line(tmp_path: Path):
    with Path("/dev/full").open("w") as full:
        assert ended(process("list", cwd=tmp_path, stdout=full)) == (74, "", NO_ROOM)
    shut = ["sh", "-c", '"$0" -m glasshouse list >&-', sys.executable]
    closed = subprocess.run(shut, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True)
    assert closed.returncode == 74
    assert closed.stderr == "glasshouse: standard output is closed; redirect it to a file, or to /dev/null\n"


def test_what_a_terminal_cannot_show_is_written_out(monkeypatch: pytest.MonkeyPatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    assert written_to(out, monkeypatch, "organism", "show", "benign") == 0
    assert rb" \u2013 " in out.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(sys, "stderr", err)
    assert written_to(out, monkeypatch, "größe") == 2
    err.flush()
    assert err.buffer.getvalue().startswith(rb"glasshouse: gr\xf6\xdfe: no such command")  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """`stopped(how)`: after the first shard, this happens."""

    def stop(how: Callable[[], object]) -> None:
        monkeypatch.setattr(plugin_method, "before_shard", lambda done: how() if done == 1 else None)

    return stop


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # it would end the tests
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)  # the handler runs before this ends


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("how", "status", "word"), [(interrupt, 130, "interrupted"), (terminate, 143, "terminated")], ids=["INT", "TERM"]
)
def test_an_interruption_keeps_what_is_finished(command, stopped, data: Path, how, status: int, word: str):
    stopped(how)
    outcome = command("run", "count", "--data", data)
    assert (outcome.status, outcome.out) == (status, "")
    assert outcome.err == f"glasshouse: {word}; finished shards are kept, the same command continues\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    stopped(lambda: None)
    assert command("run", "count", "--data", data, "--json").json["resumed"] == 1


def test_a_terminated_process_leaves_finished_shards_and_no_part(tmp_path: Path, data: Path, installed: Path):
    words = ("run", "count", "--data", data)
    running = process(*words, cwd=tmp_path, packages=installed, env={plugin_method.DELAY: "2"})
    wait_for_shards(running, tmp_path / "runs", 1)
    running.send_signal(signal.SIGTERM)
    assert ended(running) == (143, "", "glasshouse: terminated; finished shards are kept, the same command continues\n")
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [".unfinished"]
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.usefixtures("installed")
def test_a_half_written_run_is_removed_when_terminated(command, data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("glasshouse.engine.runs.rendered", lambda *_: terminate())
    assert command("run", "count", "--data", data).status == 143
    assert list(Path().rglob("*.part")) == []
    assert list(Path("runs").iterdir()) == [Path("runs/.unfinished")]


@pytest.mark.usefixtures("installed")
def test_an_internal_error_shows_what_a_model_said_as_text(command, stopped, data: Path):
    def fail() -> None:
        raise RuntimeError("\x1b]0;mine\x07\x1b[2J\u202eFAIL\nPASS  all is well")

    stopped(fail)
    outcome = command("run", "count", "--data", data)
    assert (outcome.status, outcome.out) == (70, "")
    assert controls(outcome.err) == set()
    first, *traceback, last = outcome.err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in traceback)  # no line of a stranger's begins one of ours
    assert any("in fail" in line for line in traceback)
    assert traceback[-2:] == [r"  RuntimeError: \x1b]0;mine\x07\x1b[2J\x202eFAIL", "  PASS  all is well"]
    assert last.startswith("glasshouse: internal error (")


def test_nothing_is_imported_that_windows_lacks():
    lacking = {"fcntl", "grp", "posix", "pwd", "resource", "termios", "tty"}
    for file in SOURCE.joinpath("glasshouse").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not lacking & {*names, getattr(node, "module", "")}, f"{file}:{getattr(node, 'lineno', 0)}"
