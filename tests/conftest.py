"""What several rooms share: the seedling, opened once, one finished run of it, and another package's methods."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dummies
from glasshouse.data.examples import Examples
from glasshouse.engine import catalogue
from glasshouse.engine.method import load
from glasshouse.engine.runs import Run, run
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # workers share the cores; without it each takes all of them and all wait


@pytest.fixture(scope="session")
def seedling() -> Subject:
    """The untrained organism. Whoever uses it leaves it as it was."""
    return shelf.take("organism:seedling")


@pytest.fixture(scope="session")
def squares() -> Examples:
    """What the seedling is asked, six of it."""
    return shelf.food("organism:seedling")[:6]


@pytest.fixture(scope="session")
def finished(seedling: Subject, squares: Examples, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of the lens, on disk. Whoever uses it leaves it as it was."""
    supplied = {"subject": seedling, "examples": squares}
    return run(load("lens"), supplied, root=tmp_path_factory.mktemp("finished"), command="glasshouse run lens")


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of `dummies.py`, installed: its method is listed, loaded and run like our own."""
    folder = dummies.installed(tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(dummies, "worked", [])
    catalogue.catalogue.cache_clear()
    yield folder
    catalogue.catalogue.cache_clear()
