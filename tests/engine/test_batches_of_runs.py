"""Is a run whose batches did not fit finished in smaller ones, with the finding that those give?"""

import json
from pathlib import Path

import pytest
import torch

from glasshouse.data.examples import Examples
from glasshouse.engine.audit import audit
from glasshouse.engine.binding import Request
from glasshouse.engine.method import load
from glasshouse.engine.runs import answer, run
from glasshouse.model import batching
from glasshouse.model.subject import Subject
from glasshouse.values.codec import digest
from glasshouse.values.errors import BadInput


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many rows a forward pass may have."""
    limit = {"rows": 2}
    plain = Subject.forward

    def forward(self: Subject, encoded, **options):
        if len(encoded.layout.answers) > limit["rows"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, encoded, **options)

    monkeypatch.setattr(Subject, "forward", forward)
    return limit


def test_the_finding_is_that_of_the_smaller_batch(seedling: Subject, squares: Examples, most, tmp_path: Path):
    lens, values = load("lens"), {"model": seedling, "data": squares}
    small = run(lens, values, lens.options(batch_size=2), root=tmp_path)
    halved = run(lens, values, lens.options(batch_size=4), root=tmp_path)
    sizes = [(each.facts["batches"]["largest"], each.facts["batches"]["halved"]) for each in (halved, small)]
    assert sizes == [(4, 1), (2, 0)]
    assert halved.finding.headline == small.finding.headline
    assert halved.finding.verdict == small.finding.verdict
    for ours, theirs in zip(halved.finding.rows(), small.finding.rows(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_what_was_encoded_ahead_is_encoded_again_in_smaller_batches(most, tmp_path: Path):
    """neurons scores batches that were encoded before; the whole method begins again, and finished units are kept."""
    neurons, request = load("neurons"), Request("neurons", {"model": ("organism:planted-neuron",)}, limit=24)
    options = {"most": 2, "draws": 3}
    most["rows"] = 32
    expected = answer(neurons, _with(request, options | {"batch_size": 4}), root=tmp_path, command="", progress=None)
    most["rows"] = 4
    halved = answer(neurons, _with(request, options | {"batch_size": 8}), root=tmp_path, command="", progress=None)
    assert halved.facts["batches"]["halved"] >= 1
    assert halved.finding.headline == expected.finding.headline


def _with(request: Request, options: dict[str, int]) -> Request:
    return Request(request.method, request.inputs, options, limit=request.limit)


def test_one_example_that_does_not_fit_is_refused_in_one_line(seedling, squares, most):
    most["rows"] = 0
    with pytest.raises(BadInput, match=r"^lens: the device has not enough memory for one example at a time .*--dtype"):
        load("lens").answer({"model": seedling, "data": squares})


def test_auto_is_taken_recorded_and_grows(command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(batching, "free_memory", lambda device: 2**40)
    outcome = command("run", "lens", "--model", "organism:seedling", "--batch-size", "auto", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["options"]["batch_size"] == "auto"
    assert outcome.json["batches"]["largest"] > 4
    plain = command("run", "lens", "--model", "organism:seedling", "--json")
    assert plain.json["batches"]["largest"] == 4
    assert plain.json["headline"] == outcome.json["headline"]
    assert plain.json["key"] != outcome.json["key"]
    bound = command("run", "lens", "--model", "organism:seedling", "--batch-size", "auto", "--dry-run")
    (tmp_path / "bound.json").write_text(bound.out, "utf-8")
    again = command("run", "lens", "--from", "bound.json", "--dry-run")
    assert again.json["options"]["batch_size"] == "auto"


def test_an_audit_takes_auto(seedling: Subject, squares: Examples, only_audit_methods: Path, tmp_path: Path):
    made = audit(seedling, data=squares, batch_size="auto", root=tmp_path)
    assert made.facts["options"]["batch_size"] == "auto"
    assert json.loads((made.folder / "audit.json").read_text("utf-8"))["options"]["batch_size"] == "auto"
    assert len({digest(record.finding) for record in made.runs.values()}) >= 1
    with pytest.raises(BadInput, match="--batch-size many: must be a number from 1 upwards, or auto"):
        audit(seedling, data=squares, batch_size="many", root=tmp_path)


@pytest.mark.parametrize(("size", "told"), [("0", "--batch-size 0: must be at least 1"), ("few", "--batch-size few")])
def test_another_size_is_refused_in_one_line(command, size: str, told: str):
    outcome = command("run", "lens", "--model", "organism:seedling", "--batch-size", size)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert told in outcome.err
