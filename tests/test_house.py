"""The house stands: imports run downwards, importing does nothing, starting is quick, files are short."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import glasshouse as gh

SOURCE = Path(gh.__file__).parent
PROJECT = SOURCE.parent.parent
MODULES = sorted(
    ".".join(("glasshouse", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for file in SOURCE.rglob("*.py")
)
LONGEST = 320


def python(code: str, folder: Path, **environment: str) -> dict:
    """What the code prints as JSON, run by a fresh interpreter in this folder."""
    quiet = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "JAXTYPING"))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**quiet, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lint(folder: Path) -> str | None:
    """What import-linter finds wrong with the package in this folder."""
    code = (
        "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(cache_dir=None))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else None


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(SOURCE, tmp_path / "src" / "glasshouse", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_run_downwards():
    assert lint(PROJECT) is None


@pytest.mark.parametrize(
    ("file", "line", "named"),
    [
        ("engine/units.py", "import glasshouse.report.inert", "glasshouse.engine.units -> glasshouse.report.inert"),
        ("numerics/randomness.py", "import PIL", "glasshouse.numerics.randomness -> PIL"),
    ],
)
def test_an_import_that_runs_upwards_is_found(copy: Path, file: str, line: str, named: str):
    place = copy / "src" / "glasshouse" / file
    place.write_text(place.read_text("utf-8") + f"\n{line}\n", "utf-8")
    found = lint(copy)
    assert found is not None
    assert named in found


def test_every_module_is_on_a_floor():
    layers = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    floors = {name.strip() for layer in layers for name in layer.split("|")}
    assert [name for name in MODULES if name != "glasshouse" and ".".join(name.split(".")[:2]) not in floors] == []
    assert len([floor for floor in floors if (SOURCE / floor.removeprefix("glasshouse.")).is_dir()]) <= 9


def imports(folder: Path) -> dict[str, set[str]]:
    """By module of a package, the modules of it that it imports, those under TYPE_CHECKING and in functions too."""
    files = {
        ".".join(("glasshouse", *file.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): file
        for file in folder.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in files else node.module for name in whole}
        found[module] = names & set(files) - {module}
    return found


def in_circles(graph: dict[str, set[str]]) -> set[str]:
    """Modules that import themselves by way of others."""

    def reached(module: str) -> set[str]:
        seen: set[str] = set()
        ahead = [*graph[module]]
        while ahead:
            if (name := ahead.pop()) not in seen:
                seen.add(name)
                ahead += graph[name]
        return seen

    return {module for module in graph if module in reached(module)}


def between_themes(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Imports of one theme's modules by another theme."""

    def theme(module: str) -> str | None:
        parts = module.split(".")
        return parts[2] if parts[1:2] == ["methods"] and len(parts) > 2 else None

    return sorted(
        (module, other)
        for module, others in graph.items()
        for other in others
        if theme(module) and theme(other) and theme(module) != theme(other)
    )


def test_no_theme_imports_another():
    assert between_themes(imports(SOURCE)) == []


def test_no_files_import_one_another_in_a_circle():
    assert in_circles(imports(SOURCE)) == set()


@pytest.mark.parametrize(
    "line",
    [
        "from glasshouse.methods.backdoor import _surgery",
        "from glasshouse.methods.backdoor._surgery import Cut",
        "import glasshouse.methods.backdoor._surgery",
        "def later():\n    from glasshouse.methods.backdoor._surgery import Cut",
    ],
)
def test_a_theme_that_imports_another_is_found(copy: Path, line: str):
    folder = copy / "src" / "glasshouse"
    place = folder / "methods" / "atlas" / "lens.py"
    place.write_text(place.read_text("utf-8") + f"\n{line}\n", "utf-8")
    assert between_themes(imports(folder)) == [
        ("glasshouse.methods.atlas.lens", "glasshouse.methods.backdoor._surgery")
    ]


def test_a_circle_is_found_even_where_a_type_checker_alone_sees_it(copy: Path):
    folder = copy / "src" / "glasshouse"
    place = folder / "numerics" / "randomness.py"
    hidden = "if TYPE_CHECKING:\n    from glasshouse.numerics.spectra import Ranks"
    place.write_text(place.read_text("utf-8") + f"\nfrom typing import TYPE_CHECKING\n{hidden}\n", "utf-8")
    circle = in_circles(imports(folder))
    assert {"glasshouse.numerics.randomness", "glasshouse.numerics.spectra"} <= circle


def test_no_room_holds_more_than_a_quarter_of_the_lines():
    lines = {file: len(file.read_text("utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    rooms = {
        room: sum(lines[file] for file in lines if file.parent == room) for room in {file.parent for file in lines}
    }
    largest = max(rooms, key=lambda room: rooms[room])
    assert rooms[largest] <= sum(lines.values()) / 4, largest.relative_to(SOURCE)


def test_importing_imports_nothing_heavy_and_leaves_nothing(tmp_path: Path):
    code = """
import sys, os, json, threading
before = dict(os.environ), os.getcwd()
import glasshouse
heavy = {*"torch transformers numpy matplotlib PIL jaxtyping rich tyro jinja2 pyarrow safetensors".split()}
print(json.dumps({
    "heavy": sorted(heavy & set(sys.modules)),
    "changed": (dict(os.environ), os.getcwd()) != before,
    "threads": threading.active_count(),
}))
"""
    assert python(code, tmp_path) == {"heavy": [], "changed": False, "threads": 1}
    assert list(tmp_path.iterdir()) == []


def test_importing_does_not_depend_on_the_environment(tmp_path: Path):
    code = """
import os, json
read = []
class Spied(type(os.environ)):
    def __getitem__(self, key):
        read.append(key)
        return super().__getitem__(key)
os.environ.__class__ = Spied
import glasshouse
os.environ.get("A_NAME_THAT_SHOWS_THE_SPY_WORKS")
print(json.dumps(read))
"""
    assert python(code, tmp_path) == ["A_NAME_THAT_SHOWS_THE_SPY_WORKS"]


def test_importing_is_quick(tmp_path: Path):
    """CPU time, which other work on the machine does not lengthen; `bench/startup.py` measures what a user waits."""
    code = "import time, json; t = time.process_time(); import glasshouse; print(json.dumps(time.process_time() - t))"
    assert min(python(code, tmp_path) for _ in range(5)) < 0.1


def test_listing_is_quick(tmp_path: Path):
    """CPU time of the whole process, interpreter included, as above."""
    command = Path(sys.executable).with_name("glasshouse")

    def seconds() -> float:
        before = os.times()
        subprocess.run([command, "list"], cwd=tmp_path, check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.3
    assert list(tmp_path.iterdir()) == []


def test_importing_every_module_makes_no_file_and_no_thread(tmp_path: Path):
    code = f"""
import importlib, json, sys, threading, warnings
warnings.simplefilter("error")
sys.dont_write_bytecode = True
import torch, transformers, matplotlib.figure, pyarrow.parquet  # what others start when imported is theirs
before = threading.active_count()
for name in {MODULES!r}:
    importlib.import_module(name)
print(json.dumps({{"threads": threading.active_count() - before, "pyplot": "matplotlib.pyplot" in sys.modules}}))
"""
    home = tmp_path / "home"
    work = tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    outcome = python(code, work, HOME=str(home), MPLCONFIGDIR=str(tmp_path / "matplotlib"))
    assert outcome == {"threads": 0, "pyplot": False}
    assert [*home.rglob("*"), *work.iterdir()] == []


@pytest.mark.parametrize("name", gh.__all__)
def test_every_public_name_is_there(name: str):
    assert getattr(gh, name) is not None
    assert name in dir(gh)


def test_the_public_face_is_small():
    assert 20 <= len(gh.__all__) <= 30
    assert len(set(gh.__all__)) == len(gh.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = gh.nonsense


def test_methods_stay_reachable_once_one_was_imported():
    """Importing a method's module must not put the package glasshouse.methods where gh.methods was."""
    for _ in range(2):
        assert gh.methods.lens.__name__ == "lens"
        importlib.import_module("glasshouse.methods.atlas.lens")
    assert "lens" in dir(gh.methods)
    assert not hasattr(gh.methods, "divination")


def test_files_are_short():
    files = SOURCE.rglob("*.py")
    lengths = {str(file.relative_to(SOURCE)): len(file.read_text("utf-8").splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
