"""Is a built wheel fit to be released? Its size, its contents, and with --install the commands of a new user.

python tools/wheel.py dist/NAME.whl             size, metadata, and every file of the package
python tools/wheel.py dist/NAME.whl --install   then install it into a fresh virtual environment and run it there
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "glasshouse"
LARGEST = 16 * 10**6
"""Bytes; most of them are the weights of the organisms."""
COMMANDS = {
    ("--version",): 0,
    ("list",): 0,
    ("organism", "list"): 0,
    ("completion", "bash"): 0,
    ("anatomy", "organism:seedling", "--prove"): 0,
    ("run", "lens", "--model", "organism:seedling", "--limit", "4"): 0,
    ("audit", "organism:hijack-logo"): 1,
    ("audit",): 2,
}
"""What a new user types, and the exit status; the second to last organism has a backdoor, so `concern` is right."""


def name() -> str:
    """What the distribution is called."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["name"]


def problems(wheel: Path) -> list[str]:
    """What is wrong with its size, its metadata and its files; empty where nothing is."""
    found: list[str] = []
    if wheel.stat().st_size >= LARGEST:
        found.append(f"{wheel.stat().st_size:,} bytes, {LARGEST:,} are allowed")
    with ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        about = next(entry for entry in packed if entry.endswith(".dist-info/METADATA"))
        facts = HeaderParser().parsestr(archive.read(about).decode())
        scripts = archive.read(about.replace("METADATA", "entry_points.txt")).decode()
    if facts["Name"] != name():
        found.append(f"is called {facts['Name']}, pyproject.toml says {name()}")
    if "glasshouse = glasshouse.cli:main" not in scripts:
        found.append("has no command glasshouse")
    wanted = {
        f"glasshouse/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    of_package = {entry for entry in packed if ".dist-info/" not in entry}
    found += [f"lacks {entry}" for entry in sorted(wanted - of_package)]
    return found + [f"holds {entry}, which is no file of the package" for entry in sorted(of_package - wanted)]


def smoke(wheel: Path) -> list[str]:
    """What fails in a virtual environment that has only the wheel and what it requires, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        home, work = Path(folder) / "venv", Path(folder) / "work"
        work.mkdir()
        venv.create(home, with_pip=True)
        binaries = home / ("Scripts" if sys.platform == "win32" else "bin")
        pinned = ("--constraint", str(ROOT / "constraints.txt"))
        subprocess.run([binaries / "pip", "install", "--quiet", *pinned, wheel.resolve()], check=True, cwd=work)
        statuses = {
            words: subprocess.run([binaries / "glasshouse", *words], cwd=work, check=False).returncode
            for words in COMMANDS
        }
    return [
        f"glasshouse {' '.join(words)} ends with {status}, expected {COMMANDS[words]}"
        for words, status in statuses.items()
        if status != COMMANDS[words]
    ]


def main() -> int:
    wheel = Path(sys.argv[1])
    found = problems(wheel) or (smoke(wheel) if "--install" in sys.argv[2:] else [])
    for problem in found:
        print(f"{wheel.name}: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
