"""Methods are read off their files without importing them, and what is read is what is true."""

import subprocess
import sys
from pathlib import Path

import pytest

from glasshouse.engine import catalogue
from glasshouse.engine.method import load
from glasshouse.values.errors import BadInput

ENTRIES = catalogue.catalogue()
PAGE = '"""What?\n\nPaper: none.\n\n1. Look.\n\nHow to read it: so. When it misleads: never.\n"""\n'


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_is_read_is_what_is_true(entry: catalogue.Entry):
    method = load(entry.name)
    read = (entry.name, entry.page, entry.needs, entry.role, entry.depth)
    assert read == (method.name, method.page, method.needs, method.role, method.depth)
    assert entry.needs in catalogue.NEEDS
    assert entry.file.stem == entry.name


def test_the_lens_is_there():
    entry = catalogue.find("lens")
    assert (entry.theme, entry.page.paper) == ("atlas", "arXiv:2303.08112")


def test_reading_imports_no_method():
    code = (
        "import sys; from glasshouse.engine.catalogue import catalogue; assert catalogue(); "
        "sys.exit(any(name.startswith('glasshouse.methods.') or name == 'torch' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_answered_with_the_known_names():
    with pytest.raises(BadInput, match=r"divination: no such method; methods are .*lens"):
        catalogue.find("divination")


def test_another_package_brings_its_method(installed: Path):
    entry, method = catalogue.find("count"), load("count")
    assert (entry.theme, entry.needs) == ("other", "weights")
    assert (method.page, [each.flag for each in method.inputs]) == (entry.page, ["data"])


@pytest.mark.parametrize(
    ("points", "files", "problem"),
    [
        ("count = module_that_is_gone:count", {}, "module_that_is_gone"),
        ("lens = pretender:lens", {"pretender.py": f"{PAGE}@method()\ndef lens(examples: Examples): ...\n"},
         "two methods are called lens"),
        ("odd = odd:odd", {"odd.py": '"""Nothing."""\n@method()\ndef odd(examples: Examples): ...\n'},
         r"odd.py: this method file cannot be read \(odd: its docstring lacks a question"),
    ],
)  # fmt: skip
def test_a_package_that_breaks_the_form_is_named(installed: Path, points: str, files: dict[str, str], problem: str):
    for name, content in files.items():
        (installed / name).write_text(content)
    next(installed.glob("*.dist-info")).joinpath("entry_points.txt").write_text(f"[glasshouse.methods]\n{points}\n")
    with pytest.raises(BadInput, match=problem):
        catalogue.catalogue()
