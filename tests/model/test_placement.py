"""Is a device that is not there, or a model that does not fit, refused before a weight is read?"""

from pathlib import Path
from typing import Any

import pytest
import torch

from glasshouse.model import checkpoint, machine, placement
from glasshouse.model.opening import open_subject
from glasshouse.values.errors import BadInput


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("gpu", "^device gpu: no such device; use cuda$"),
        ("GPU:1", "^device GPU:1: no such device; use cuda:1$"),
        ("0", "^device 0: no such device; use cuda:0$"),
        ("metal", "^device metal: no such device; use mps$"),
        ("nonsense", "no such device"),
        ("meta", "no such device"),
        ("", "no such device"),
        ("cuda:x", "no such device"),
        ("cuda", "^device cuda: PyTorch finds no cuda device here; use cpu"),
        ("cuda:1", "no cuda device"),
        ("mps", "no mps device"),
        ({"": "cuda"}, "^device map, '': cuda: PyTorch finds no cuda device"),
        ({"model": 0}, "^device map, 'model': 0: PyTorch finds no cuda device"),
        ({"model": "nonsense"}, "^device map, 'model': nonsense: no such device"),
        ({"model": None}, "^device map, 'model': None: no such device"),
    ],
    ids=str,
)
def test_a_device_that_is_not_there_is_refused(stored, monkeypatch: pytest.MonkeyPatch, device: Any, told: str):
    for backend in (torch.cuda, torch.backends.mps, torch.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False, raising=False)
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: pytest.fail("a weight was read"))
    with pytest.raises(BadInput, match=told):
        open_subject(stored("llava"), device=device)


def test_a_device_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    placement.check_device("cuda:1")
    with pytest.raises(BadInput, match=r"^device cuda:2: there are 2 of them, numbered from 0$"):
        placement.check_device("cuda:2")


@pytest.mark.parametrize("device", [None, "cpu", "auto", {"": "cpu"}, {"": "disk"}], ids=str)
def test_devices_that_are_there_are_taken(device: Any):
    placement.check_device(device)


def test_the_command_line_refuses_a_device_in_one_line(stored, command):
    outcome = command("anatomy", stored("llava"), "--prove", "--device", "gpu")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "device gpu: no such device; use cuda" in outcome.err


def test_the_memory_that_is_free_in_a_container_is_what_its_limit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = machine.free_memory()
    monkeypatch.setattr(machine, "GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 300\nactive_file 100\ninactive_file 200\n")
    assert machine.free_memory() == 600  # files in the cache are given back
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory() is None or machine.free_memory() > 1000
    assert whole is None or whole > 1000
