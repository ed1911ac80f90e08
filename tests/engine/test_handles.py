"""A Subject is opened again by what it is, and another one in its place is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from glasshouse.engine import handles
from glasshouse.engine.cluster import ray_workers
from glasshouse.engine.handles import Handle
from glasshouse.engine.units import executing
from glasshouse.model.opening import open_subject
from glasshouse.model.subject import Subject
from glasshouse.organisms import seedling as grown
from glasshouse.values.errors import BadInput


@pytest.fixture(autouse=True)
def nothing_open(monkeypatch: pytest.MonkeyPatch):
    """As in a worker that has just started."""
    monkeypatch.setattr(handles, "_open", type(handles._open)())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint("llava", tmp_path_factory.mktemp("checkpoints") / "llava")


def test_a_model_opened_by_name_is_opened_again_and_kept_open(checkpoint: Path, tmp_path: Path):
    subject = open_subject(checkpoint)
    again = Handle.of(subject, tmp_path).open()
    assert again is not subject
    assert again.content == subject.content
    assert Handle.of(subject, tmp_path).open() is again
    assert list(tmp_path.iterdir()) == []  # nothing was exported


def test_an_organism_is_opened_again_by_its_name(seedling: Subject, tmp_path: Path):
    again = Handle.of(seedling, tmp_path).open()
    assert (again.name, again.content) == (seedling.name, seedling.content)
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_memory_is_exported_once(tmp_path: Path):
    subject = open_subject(grown.model(), processor=grown.processor())
    subject.name = "in memory"
    handle = Handle.of(subject, tmp_path)
    again = handle.open()
    assert (again.name, again.content) == ("in memory", subject.content)
    assert Handle.of(subject, tmp_path) == handle
    assert len(list(tmp_path.iterdir())) == 1


def test_other_weights_in_its_place_are_refused_with_both_hashes(checkpoint: Path, tmp_path: Path):
    subject = open_subject(checkpoint)
    wanted = Handle.of(subject, tmp_path)
    with torch.no_grad():
        next(subject.model.parameters()).add_(1)
    subject.model.save_pretrained(checkpoint)
    found = open_subject(checkpoint).identity.weights
    with pytest.raises(BadInput, match=rf"weights .* {found[:12]}.* {wanted.hashes[0][:12]}.*; give the worker"):
        wanted.open()


@pytest.mark.parametrize(("place", "name"), [(0, "weights"), (1, "configuration"), (2, "processor")])
def test_whatever_differs_is_named(seedling: Subject, tmp_path: Path, place: int, name: str):
    handle = Handle.of(seedling, tmp_path)
    hashes = tuple("0" * 64 if i == place else value for i, value in enumerate(handle.hashes))
    with pytest.raises(BadInput, match=f"organism:seedling: the {name} that a worker opened"):
        replace(handle, hashes=hashes).open()


def test_few_models_stay_open(checkpoint: Path, seedling: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handles, "MOST_OPEN", 1)
    first = Handle.of(seedling, tmp_path)
    kept = first.open()
    Handle.of(open_subject(checkpoint), tmp_path).open()
    assert first.open() is not kept


@pytest.mark.parametrize("on", ["raylet", "ray:", "ray:somewhere", "ray:somewhere:port", "dask"])
def test_an_unknown_place_is_refused(on: str):
    with pytest.raises(BadInput, match=f"--on {on}: write ray, or ray:HOST:PORT"), executing(on):
        pass


def test_an_address_without_a_cluster_is_refused_with_the_fix():
    with (
        pytest.raises(BadInput, match=r"Connection refused.*ray start --address=127.0.0.1:1"),
        executing("ray:127.0.0.1:1"),
    ):
        pass


def test_ray_that_is_missing_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BadInput, match="pip install ray"), ray_workers("ray"):
        pass
