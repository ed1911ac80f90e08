"""What several rooms share: the seedling, opened once, one finished run of it, and another package's methods."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import dummies
import juries
import offline
from glasshouse import cli
from glasshouse.data import network
from glasshouse.data.examples import Examples
from glasshouse.engine import audit, catalogue, inputs
from glasshouse.engine.method import load
from glasshouse.engine.runs import Run, run
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.organisms.organism import organism
from typing_in import Outcome

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


@pytest.fixture(scope="session")
def seedling() -> Subject:
    """The untrained organism. Whoever uses it leaves it as it was."""
    return shelf.take("organism:seedling")


@pytest.fixture(scope="session")
def base() -> Subject:
    """A grown model without a backdoor. Tests leave it unchanged."""
    return shelf.take("base")


@pytest.fixture(scope="session")
def squares() -> Examples:
    """What the seedling is asked, six of it."""
    return organism("seedling").examples[:6]


@pytest.fixture(scope="session")
def finished(seedling: Subject, squares: Examples, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of the lens, on disk. Whoever uses it leaves it as it was."""
    supplied = {"model": seedling, "data": squares}
    return run(load("lens"), supplied, root=tmp_path_factory.mktemp("finished"), command="glasshouse run lens")


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of `dummies.py`, installed: its method is listed, loaded and run like our own."""
    folder = dummies.installed(tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(dummies, "worked", [])
    for known in (catalogue.catalogue, inputs.installed):
        known.cache_clear()
    yield folder
    for known in (catalogue.catalogue, inputs.installed):
        known.cache_clear()


@pytest.fixture
def jury(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of `juries.py`, installed, and audits that ask nothing else."""
    folder = juries.installed(tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(juries, "says", {})
    monkeypatch.setattr(juries, "asked", [])
    monkeypatch.setattr(juries, "text", juries.text)
    catalogue.catalogue.cache_clear()
    others = tuple(entry for entry in catalogue.catalogue() if entry.module == "juries")
    monkeypatch.setattr(audit, "catalogue", lambda: others)
    yield folder
    catalogue.catalogue.cache_clear()


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """`typed("list", "--json")`: as typed in an empty folder, but in this process."""
    monkeypatch.chdir(tmp_path)

    def type_in(*words: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), said.out, said.err)

    return type_in
