"""Fixtures of several folders of tests: opened organisms, a finished run, installed packages, the command line."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import audit_methods
import offline
import plugin_method
import shapes
from command_line import Outcome
from glasshouse import cli
from glasshouse.data import network
from glasshouse.data.examples import Examples
from glasshouse.engine import audit, audit_plan, catalogue, inputs
from glasshouse.engine.method import load
from glasshouse.engine.runs import Run, run
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism

network.watch()  # first, so that the suite's own hook sees only what glasshouse lets through
offline.install()
pytest_plugins = ("budget",)

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # workers share the cores; without it each takes all of them and all wait


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """A test that reaches for the network fails, and so does the test that set up what reached for it."""
    yield
    reached, offline.attempts[:] = list(offline.attempts), []
    assert reached == []


@pytest.fixture(autouse=True)
def shapes_are_checked() -> None:
    """The first calls of every function, in every test."""
    shapes.forget()


@pytest.fixture(scope="session")
def seedling() -> Subject:
    """The untrained organism. Tests leave it unchanged."""
    return shelf.take("organism:seedling")


@pytest.fixture(scope="session")
def base() -> Subject:
    """A grown model without a backdoor. Tests leave it unchanged."""
    return shelf.take("base")


@pytest.fixture(scope="session")
def squares() -> Examples:
    """Six examples of the seedling."""
    return organism("seedling").examples[:6]


@pytest.fixture(scope="session")
def finished(seedling: Subject, squares: Examples, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of the lens, on disk. Tests leave it unchanged."""
    supplied = {"model": seedling, "data": squares}
    return run(load("lens"), supplied, root=tmp_path_factory.mktemp("finished"), command="glasshouse run lens")


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of `plugin_method.py`, installed: its method is listed, loaded and run like our own."""
    folder = plugin_method.installed(tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plugin_method, "processed", [])
    for cached in (catalogue.catalogue, inputs.installed):
        cached.cache_clear()
    yield folder
    for cached in (catalogue.catalogue, inputs.installed):
        cached.cache_clear()


@pytest.fixture
def only_audit_methods(
    seedling: Subject, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The package of `audit_methods.py`, installed; audits run no other methods and open no second seedling."""
    folder = audit_methods.installed(tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(str(folder))
    for name, value in {"outcomes": {}, "called": [], "text": audit_methods.text, "drawn": False}.items():
        monkeypatch.setattr(audit_methods, name, value)
    catalogue.catalogue.cache_clear()
    entries = tuple(entry for entry in catalogue.catalogue() if entry.module == "audit_methods")
    for module in (audit, audit_plan):
        monkeypatch.setattr(module, "catalogue", lambda: entries)
    take = shelf.take
    monkeypatch.setattr(shelf, "take", lambda name: seedling if name == seedling.name else take(name))
    yield folder
    catalogue.catalogue.cache_clear()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """`command("list", "--json")`: runs glasshouse with these arguments, in an empty folder and in this process."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run_command
