"""What is released: a wheel of the right name, size and content, a container that keeps to itself, a workflow that
publishes what was tried and nothing else."""

import fnmatch
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

import glasshouse as gh

ROOT = Path(__file__).parents[1]
PLAIN = "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"


def tool(name: str):
    """A script of `tools/`, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = tool("wheel")


def written(*folders: str, suffixes: tuple[str, ...]) -> dict[Path, str]:
    """The texts of these folders and of the project's own."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in suffixes]
    files += [file for file in ROOT.iterdir() if file.suffix in suffixes or file.name in ("Dockerfile", "Makefile")]
    return {file: file.read_text("utf-8") for file in files}


INSTALLED = re.compile(r"pip install (?:-\S+ )*['\"]?(\.?/?glasshouse[\w-]*)")
"""What a text tells to install, where that is glasshouse."""


def test_no_text_tells_to_install_another_projects_package():
    texts = written("src", "docs", ".github", suffixes=(".py", ".md", ".ipynb", ".yml", ".toml", ".j2"))
    advised = {(match, file.name) for file, text in texts.items() for match in INSTALLED.findall(text)}
    # Not even its own name: until that is registered, anybody may take it on the index.
    assert {package for package, _ in advised} == {"./glasshouse"}, advised
    assert check.name() != "glasshouse"


def test_such_a_text_is_found():
    assert INSTALLED.findall("pip install glasshouse, pip install -q 'glasshouse[large]'") == ["glasshouse"] * 2


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    return Path(next(builder.build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])))


def test_the_wheel_is_small_and_whole(wheel: Path):
    assert check.problems(wheel) == []
    with ZipFile(wheel) as archive:
        (about,) = (entry for entry in archive.namelist() if entry.endswith("METADATA"))
        facts = HeaderParser().parsestr(archive.read(about).decode())
    assert (facts["Name"], facts["Version"]) == (check.name(), gh.__version__)
    assert {"adapters", "large", "vision", "cluster"} <= set(facts.get_all("Provides-Extra", []))


def test_the_wheel_runs_where_the_clone_is_not(wheel: Path, tmp_path: Path):
    """Unpacked, with this environment's libraries; tools/wheel.py installs it into an environment of its own."""
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import glasshouse, glasshouse.cli; print(glasshouse.__file__); glasshouse.cli.main(['list', '--json'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    place, methods = done.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path)
    assert "lens" in {method["name"] for method in json.loads(methods)}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A wheel of the package's files, without their contents."""
    file = tmp_path / "whole.whl"
    with ZipFile(file, "w") as archive:
        for each in check.PACKAGE.rglob("*"):
            if each.is_file() and "__pycache__" not in each.parts:
                archive.writestr(f"glasshouse/{each.relative_to(check.PACKAGE).as_posix()}", "")
        archive.writestr("x.dist-info/METADATA", f"Name: {check.name()}\n\n")
        archive.writestr("x.dist-info/entry_points.txt", "[console_scripts]\nglasshouse = glasshouse.cli:main\n")
    return file


def without(wheel: Path, entry: str, **others: str) -> Path:
    """The wheel less an entry, and with others."""
    changed = wheel.with_name("changed.whl")
    with ZipFile(wheel) as old, ZipFile(changed, "w") as new:
        for name in old.namelist():
            if name != entry:
                new.writestr(name, old.read(name))
        for name, text in others.items():
            new.writestr(name, text)
    return changed


def test_what_is_wrong_with_a_wheel_is_named(package: Path, monkeypatch: pytest.MonkeyPatch):
    assert check.problems(package) == []
    assert check.problems(without(package, "glasshouse/py.typed")) == ["lacks glasshouse/py.typed"]
    assert check.problems(without(package, "", **{"tests/secret.py": ""})) == [
        "holds tests/secret.py, which is no file of the package"
    ]
    about = {"x.dist-info/METADATA": "Name: glasshouse\n\n"}
    assert check.problems(without(package, "x.dist-info/METADATA", **about)) == [
        f"is called glasshouse, pyproject.toml says {check.name()}"
    ]
    scripts = {"x.dist-info/entry_points.txt": ""}
    assert check.problems(without(package, "x.dist-info/entry_points.txt", **scripts)) == ["has no command glasshouse"]
    monkeypatch.setattr(check, "LARGEST", 1000)
    assert check.problems(package) == [f"{package.stat().st_size:,} bytes, 1,000 are allowed"]


# The container


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, an instruction a line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.M).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    assert {word for word, _ in lines} <= set(PLAIN)
    return [(word, " ".join(rest.split())) for word, rest in lines]


def test_everything_that_the_container_copies_is_there():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), f".dockerignore hides {source}"
    assert set(kept) == {source for sources in copied for source in sources}


def test_the_container_has_what_the_build_reads():
    copied = {source for word, rest in instructions() if word == "COPY" for source in rest.split()}
    named = re.findall(r'^(?:readme = |license-files = \[)"(.+?)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    (install,) = (rest for word, rest in instructions() if word == "RUN" and "pip install" in rest)
    constraints = re.findall(r"--constraint (\S+)", install)
    assert {*named, *constraints, "pyproject.toml", "src"} <= copied
    assert install.endswith(" .")


def test_the_container_is_offline_and_not_root():
    words = instructions()
    last = max(number for number, (word, _) in enumerate(words) if word == "FROM")
    final = dict(words[last:])
    assert final["FROM"].endswith("-slim")
    assert final["USER"] not in ("root", "0")
    assert f"useradd --uid 10001 --create-home {final['USER']} " in final["RUN"]
    assert f"--owner {final['USER']} {final['WORKDIR']} " in final["RUN"]
    assert "HF_HUB_OFFLINE=1" in final["ENV"].split()


def test_what_the_container_runs_is_a_command(command):
    words = dict(instructions())
    program, arguments = json.loads(words["ENTRYPOINT"]), json.loads(words["CMD"])
    assert program == ["glasshouse"]
    planned = command(*arguments, "--dry-run")
    assert planned.status == 0
    assert planned.json["inputs"] == {"model": "organism:hijack-logo"}
    assert f"glasshouse {' '.join(arguments[:2])};" in (ROOT / "Makefile").read_text("utf-8")


# The workflow


@pytest.fixture(scope="module")
def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))


def test_only_a_tag_releases_and_only_one_job_may_publish(workflow: dict):
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert {name: job.get("permissions") for name, job in jobs.items()} == {
        "build": None,
        "publish": {"id-token": "write"},
    }
    assert jobs["publish"]["needs"] == "build"
    assert not any("run" in step for step in jobs["publish"]["steps"])  # it runs no code of the repository
    assert "secrets" not in json.dumps(jobs)


def test_what_the_workflow_runs_is_there(workflow: dict):
    commands = [step["run"] for step in workflow["jobs"]["build"]["steps"] if "run" in step]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert commands.index(".ci/run") < commands.index("python -m build --outdir dist")
    made = re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text("utf-8"), re.M)
    assert {"check", "test"} <= set(made) <= set(targets)
    scripts = [Path(name) for line in commands for name in re.findall(r"\S+\.py\b", line)]
    assert scripts == [Path("tools/wheel.py")]
    assert all((ROOT / script).is_file() for script in scripts)
    assert commands.index("python -m build --outdir dist") < commands.index(f"python {scripts[0]} dist/*.whl --install")


@pytest.mark.parametrize(("tag", "status"), [(f"v{gh.__version__}", 0), ("v0.0.0", 1)])
def test_a_tag_that_is_not_the_version_stops_the_release(workflow: dict, tag: str, status: int):
    (line,) = (step["run"] for step in workflow["jobs"]["build"]["steps"] if "GITHUB_REF_NAME" in step.get("run", ""))
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(["sh", "-ec", line], cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": path}, check=False)
    assert done.returncode == status
