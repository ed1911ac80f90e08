"""Methods are read off their files without importing them, and what is read is what is true."""

import subprocess
import sys
from pathlib import Path

import pytest

from glasshouse.engine import catalogue
from glasshouse.engine.method import load
from glasshouse.values.errors import BadInput

ENTRIES = catalogue.catalogue()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_is_read_is_what_is_true(entry: catalogue.Entry):
    method = load(entry.name)
    read = (entry.name, entry.question, entry.paper, entry.needs, entry.subjects, entry.examples)
    true = (method.name, method.question, method.paper, method.needs, tuple(method.subjects), tuple(method.examples))
    assert read == true
    assert entry.needs in catalogue.NEEDS
    assert entry.question.endswith("?")
    assert entry.file.stem == entry.name


def test_the_lens_is_there():
    entry = catalogue.find("lens")
    assert (entry.theme, entry.subjects, entry.examples) == ("atlas", ("subject",), ("examples",))


def test_reading_imports_no_method():
    code = (
        "import sys; from glasshouse.engine.catalogue import catalogue; assert catalogue(); "
        "sys.exit(any(name.startswith('glasshouse.methods.') or name == 'torch' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(BadInput, match=r"divination: no such method; there are .*lens"):
        catalogue.find("divination")


def test_another_package_brings_its_method(installed: Path):
    entry, method = catalogue.find("count"), load("count")
    assert (entry.theme, entry.needs, entry.examples) == ("other", "weights", ("examples",))
    assert (method.question, tuple(method.examples)) == (entry.question, entry.examples)


def test_a_package_that_is_gone_is_named(installed: Path):
    about = next(installed.glob("*.dist-info")) / "entry_points.txt"
    about.write_text("[glasshouse.methods]\ncount = module_that_is_gone:count\n")
    with pytest.raises(BadInput, match="module_that_is_gone"):
        catalogue.catalogue()


def test_two_methods_of_one_name_are_refused(installed: Path, monkeypatch: pytest.MonkeyPatch):
    (installed / "impostor.py").write_text("@method(question='Who?')\ndef lens(examples: Examples): ...\n")
    about = next(installed.glob("*.dist-info")) / "entry_points.txt"
    about.write_text("[glasshouse.methods]\nlens = impostor:lens\n")
    with pytest.raises(BadInput, match="two methods are called lens"):
        catalogue.catalogue()


@pytest.mark.parametrize(
    ("parameters", "subjects", "examples"),
    [
        ("subject: Subject", ("subject",), ()),
        ("subject: Subject, base: Subject | None = None", ("subject", "base"), ()),
        ("examples: Examples, reference: Examples | None = None", (), ("examples", "reference")),
        ("subject: Subject, *, examples: Examples", ("subject",), ("examples",)),
    ],
)
def test_parameters_are_read_as_the_decorator_reads_them(installed: Path, parameters, subjects, examples):
    """The same file, read without importing and imported."""
    source = (
        "from dataclasses import dataclass\n"
        "from glasshouse.data.examples import Examples\n"
        "from glasshouse.engine.method import method\n"
        "from glasshouse.model.subject import Subject\n"
        "from glasshouse.values.findings import Finding\n"
        "@dataclass(frozen=True)\nclass Options: ...\n"
        f"@method(question='What?')\ndef probe({parameters}, options: Options = Options()) -> Finding: ...\n"
    )
    (installed / "prober.py").write_text(source)
    about = next(installed.glob("*.dist-info")) / "entry_points.txt"
    about.write_text("[glasshouse.methods]\nprobe = prober:probe\n")
    sys.modules.pop("prober", None)
    entry, method = catalogue.find("probe"), load("probe")
    assert (entry.subjects, entry.examples) == (subjects, examples)
    assert (tuple(method.subjects), tuple(method.examples)) == (subjects, examples)
