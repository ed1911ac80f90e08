"""What a shell offers at TAB: what can follow, all of it, at once, and nothing that acts."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import MISSING, is_dataclass
from pathlib import Path

import pytest

from glasshouse import cli, completion
from glasshouse.engine.catalogue import catalogue
from glasshouse.flags import every
from glasshouse.organisms import shelf
from glasshouse.organisms.recipes import RECIPES
from plugins import environment

PROGRAM = Path(sys.executable).with_name("glasshouse")


def offered(*words: str) -> list[str]:
    return completion.candidates(words)


def test_commands_methods_and_shells_are_offered(installed: Path):
    assert offered("") == list(cli.COMMANDS)
    assert offered("an") == ["anatomy"]
    assert offered("run", "") == [entry.name for entry in catalogue()]
    assert offered("run", "cou") == ["count"]  # of another package
    assert offered("organism", "") == ["list", "show", "grow", "verify"]
    assert offered("completion", "") == ["bash", "zsh", "fish"]


def test_every_flag_of_every_command_is_offered_and_no_other_methods():
    for name, columns in every().items():
        words = name.split() if name != "run" else ["run", "a-method-of-another-package"]
        flags = set(offered(*words, "--"))
        typed = {
            f"--{column.replace('_', '-')}"
            for column, kind, default, *_ in columns
            if default is not MISSING and not is_dataclass(default) and "Positional" not in str(kind)
        }
        assert flags >= {*typed, "--help"}, name
        assert ("--device" in flags) == any(column[0] == "opening" for column in columns)
    assert {"--ridge", "--tuned", "--data", "--limit"} <= set(offered("run", "lens", "--"))
    assert "--benign" not in offered("run", "lens", "--")
    assert "--limit" in offered("run", "a-method-of-another-package", "--")


def test_the_help_of_every_method_lists_what_is_offered(command):
    for name in ("lens", "purify"):
        told = command("run", name, "--help").out
        flags = offered("run", name, "--")
        assert len(flags) > 15
        assert [flag for flag in flags if f"{flag} " not in told.replace(",", " ").replace("]", " ")] == []


def test_values_are_offered_where_they_are_few():
    assert offered("audit", "organism:hij") == ["organism:hijack-logo", "organism:hijack-logo-2"]
    assert offered("audit", "x", "--base", "organism:base-") == ["organism:base-2", "organism:base-3"]
    assert offered("audit", "x", "--depth", "") == ["quick", "standard", "thorough"]
    assert offered("audit", "x", "--depth=q") == ["--depth=quick"]
    assert offered("audit", "x", "--dtype", "b") == ["bfloat16"]
    assert offered("organism", "show", "") == list(shelf.names())
    assert offered("organism", "grow", "") == list(RECIPES)
    assert "organism:seedling" in offered("anatomy", "")


def test_what_is_typed_is_not_offered_again():
    assert "--json" not in offered("audit", "x", "--json", "--")
    assert "--device" in offered("audit", "x", "--json", "--")
    assert offered("audit", "x", "--data", "") == []  # a file: the shell's business
    assert "--depth" in offered("audit", "x", "")  # the model is there already
    assert offered("divine", "") == []


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders as runs, audits and others are laid down."""
    monkeypatch.chdir(tmp_path)
    for folder, file in {
        "runs/20261124-lens": "run.json", "runs/20261124-audit": "audit.json",
        "runs/my run; $(touch acted)": "run.json",
        "runs/a\nb": "run.json", "runs/other": "text", "runs/.unfinished": "run.json", "data": "x.jsonl",
    }.items():  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / file).write_text("{}")
    return tmp_path


def test_runs_are_offered_where_a_run_is_wanted(runs: Path):
    assert offered("report", "") == ["runs/"]
    assert offered("report", "runs/2") == ["runs/20261124-audit", "runs/20261124-lens"]
    assert offered("compare", "runs/x", "runs/20261124-l") == ["runs/20261124-lens"]
    assert "--page" in offered("compare", "runs/x", "runs/y", "")
    assert offered("report", "nowhere/") == []
    assert offered("report", f"{runs}/ru") == [f"{runs}/runs/"]


@pytest.mark.usefixtures("runs")
def test_a_line_is_split_as_the_shell_would(command):
    assert command("completion", "bash", "glasshouse report ").out == "runs/\n"
    assert command("completion", "zsh", "glasshouse report 'runs/my").out == "runs/my run; $(touch acted)\n"
    assert (
        command("completion", "bash", r"glasshouse report runs/my\ r").out
        == r"runs/my\ run\;\ \$\(touch\ acted\)" + "\n"
    )
    assert "a\nb" not in command("completion", "bash", "glasshouse report runs/").out
    assert command("completion", "bash", "glasshouse run le").out == "lens\n"


@pytest.mark.parametrize("words", [(), ("tcsh",), ("bash", "x", "y")], ids=str)
def test_another_shell_is_refused_in_a_line(command, words: tuple[str, ...]):
    outcome = command("completion", *words)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "bash, zsh, fish; for example source <(glasshouse completion bash)" in outcome.err


def test_it_imports_no_model_library_and_is_quick(tmp_path: Path):
    code = (
        "import sys, time, json; from glasshouse.completion import candidates; candidates(['run', 'lens', '--']);"
        "candidates(['run', '']); heavy = {'torch', 'numpy', 'tyro', 'rich', 'pyarrow'} & set(sys.modules);"
        "print(json.dumps([sorted(heavy), time.process_time()]))"
    )
    done = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
        for _ in range(3)
    ]
    answers = [json.loads(each.stdout) for each in done]
    assert answers[0][0] == []
    assert min(seconds for _, seconds in answers) < 0.3


def shell(*words: str, code: str, folder: Path) -> list[str]:
    """What a shell prints that has read the script; the program is the one of this environment."""
    variables = environment() | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run([*words, code], cwd=folder, env=variables, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


BASH = """
source <(glasshouse completion bash)
try() {  # as readline does: the words split at COMP_WORDBREAKS, and what is replaced as the second argument
    COMP_LINE=$1 COMP_POINT=${#1}
    local last="${1##*[[:space:]]}"
    COMP_WORDS=($1) COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    _glasshouse glasshouse "${last##*[:=]}" "" 2>&1
    printf '%s ' "${COMPREPLY[@]}"; echo
}
"""


def test_bash_completes(runs: Path):
    lines = {
        "glasshouse aud": "audit",
        "glasshouse run norm": "norm_law",
        "glasshouse run lens --rand": "--random-tokens",
        "glasshouse audit organism:hijack-logo-": "hijack-logo-2",
        "glasshouse audit organism:benign --depth=q": "quick",
        "glasshouse audit --data ": "",
        "glasshouse report runs/20261124-l": "runs/20261124-lens",
        "glasshouse report runs/my": r"runs/my\ run\;\ \$\(touch\ acted\)",
    }
    code = BASH + "".join(f"try '{line}'\n" for line in lines)
    assert [line.strip() for line in shell("bash", "--norc", "-c", code=code, folder=runs)] == list(lines.values())
    assert not (runs / "acted").exists()


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_completes(runs: Path):
    code = """
compdef() { print -r -- $@ }; compadd() { print -r -- ${@:#-*} }; _files() { print files }
source <(glasshouse completion zsh)
words=(glasshouse run norm); CURRENT=3; PREFIX=norm; _glasshouse
words=(glasshouse audit --data ''); CURRENT=4; PREFIX=; _glasshouse
"""
    assert shell("zsh", "-f", "-c", code=code, folder=runs) == ["_glasshouse glasshouse", "norm_law", "files"]


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish_completes(runs: Path):
    asked = "glasshouse run norm", "glasshouse audit organism:hijack-logo-"
    code = "glasshouse completion fish | source" + "".join(f"; complete -C '{line}'" for line in asked)
    assert shell("fish", "--no-config", "-c", code=code, folder=runs) == ["norm_law", "organism:hijack-logo-2"]
