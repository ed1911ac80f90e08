"""The house stands: imports run downwards, importing does nothing, starting is quick, files are short."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
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
    code = "import time, json; t = time.perf_counter(); import glasshouse; print(json.dumps(time.perf_counter() - t))"
    assert min(python(code, tmp_path) for _ in range(5)) < 0.1


def test_listing_is_quick_and_imports_no_torch(tmp_path: Path):
    command = Path(sys.executable).with_name("glasshouse")
    took = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([command, "list"], cwd=tmp_path, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.3
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
        assert gh.methods.lens.name == "lens"
        importlib.import_module("glasshouse.methods.atlas.lens")
    assert "lens" in dir(gh.methods)
    assert not hasattr(gh.methods, "divination")


def test_files_are_short():
    files = SOURCE.rglob("*.py")
    lengths = {str(file.relative_to(SOURCE)): len(file.read_text("utf-8").splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
