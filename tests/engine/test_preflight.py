"""Is what does not fit refused before a weight is read, and does the user see beforehand what the work will take?"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glasshouse.engine import preflight as checks
from glasshouse.engine.audit import estimated_audit
from glasshouse.engine.audit_plan import Methods
from glasshouse.engine.binding import Request
from glasshouse.engine.method import load
from glasshouse.engine.passes import Passes
from glasshouse.engine.preflight import Work, estimated
from glasshouse.engine.runs import run
from glasshouse.model import checkpoint
from glasshouse.model.patches import export
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput
from glasshouse.values.wording import duration, gibibytes

SEEDLING = "organism:seedling"


@pytest.fixture(scope="module")
def folder(seedling: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(seedling, tmp_path_factory.mktemp("model") / "seedling")


@pytest.fixture(scope="module")
def data(squares, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares.write(tmp_path_factory.mktemp("data") / "squares")


def lens(folder: Path, data: Path, **options: object) -> checks.Estimate:
    request = Request("lens", {"model": (str(folder),), "data": (str(data),)}, options)
    estimate = estimated(request, load("lens").inputs, lambda _: [load("lens")])
    assert estimate is not None
    return estimate


def test_the_table_adds_up(seedling: Subject, folder: Path, data: Path):
    estimate, parameters = lens(folder, data), sum(each.numel() for each in seedling.model.parameters())
    assert estimate.examples == 6
    assert estimate.works == (Work(False, 4),)
    assert estimate.passes == Passes(forward=18)
    rows = [*estimate.rows()]
    assert [name for name, _, _ in rows] == [
        "model: vision", "model: projector", "model: language", "work: 4 x 73 tokens", "together", "free on cpu",
    ]  # fmt: skip
    counts = [int(count.replace(",", "")) for _, count, _ in rows[:3]]
    assert sum(counts) == parameters
    assert estimate.total() == (f"{parameters:,}", gibibytes(estimate.weights + estimate.working()[0]))
    assert estimate.working(2)[0] * 2 == estimate.working(4)[0]
    assert estimate.note().startswith("Time: about ")


def test_two_models_take_twice_the_memory(folder: Path, data: Path):
    inputs = {"model": (str(folder),), "data": (str(data),)}
    one, two = (
        estimated_audit(Request("audit", more), Methods.load()) for more in (inputs, {**inputs, "base": (str(folder),)})
    )
    assert one is not None
    assert two is not None
    assert two.weights == 2 * one.weights
    assert two.methods > one.methods  # those that compare with the base run too


def test_an_organism_is_estimated_with_what_it_brings():
    estimate = estimated_audit(Request("audit", {"model": (SEEDLING,)}), Methods.load())
    assert estimate is not None
    assert estimate.examples == 16
    assert {name for name, _, _ in estimate.rows()} >= {"model: vision", "model: projector", "model: language"}


def refused(monkeypatch: pytest.MonkeyPatch, room: Callable[[object], int]) -> None:
    monkeypatch.setattr(checks, "free_memory", room)
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: pytest.fail("a weight was read"))


@pytest.mark.parametrize("name", ["run", "audit"])
def test_what_does_not_fit_is_refused_in_one_line_before_a_weight_is_read(
    folder: Path, data: Path, command, monkeypatch: pytest.MonkeyPatch, name: str
):
    estimate = lens(folder, data)
    needed = estimate.weights + estimate.working(1)[0]
    refused(monkeypatch, lambda device: int(0.6 * needed))
    words = ["run", "lens", "--model"] if name == "run" else ["audit"]
    outcome = command(*words, folder, "--data", data, "--json")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert re.search(r"MiB are free on cpu; use --d\w+ \w+, which .*, or take a machine with \d GiB$", outcome.err)
    assert not Path("runs").exists()


def test_what_fits_one_example_at_a_time_is_begun_and_told(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    whole = lens(folder, data)
    room = whole.weights + whole.working(2)[0]
    monkeypatch.setattr(checks, "free_memory", lambda device: room)
    tight = lens(folder, data)
    tight.check()
    assert tight.fitting_batch == 2
    assert "4 examples at once do not fit; batches shrink to about 2." in tight.note()
    monkeypatch.setattr(checks, "free_memory", lambda device: whole.weights + whole.working(1)[0] - 1)
    with pytest.raises(BadInput, match="are free on cpu"):
        lens(folder, data).check()
    monkeypatch.setattr(checks, "free_memory", lambda device: None)  # a system that does not say
    lens(folder, data).check()


def test_the_table_stands_before_the_work_and_not_in_json(folder: Path, data: Path, command):
    outcome = command("run", "lens", "--model", folder, "--data", data, "--limit", "2")
    assert outcome.status == 0
    lines = outcome.err.splitlines()
    assert lines[0].split() == ["parameters", "memory"]
    assert lines[-1].startswith("Time: about ")
    assert len({len(line) for line in lines[1:4]}) == 1  # numbers in line
    quiet = command("run", "lens", "--model", folder, "--data", data, "--limit", "2", "--json")
    assert (quiet.status, quiet.err) == (0, "")


@pytest.mark.parametrize("words", [("run", "lens", "--model"), ("audit",)], ids=lambda words: words[0])
def test_a_dry_run_shows_the_table_beside_the_question(folder: Path, data: Path, command, monkeypatch, words):
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: pytest.fail("a weight was read"))
    outcome = command(*words, folder, "--data", data, "--dry-run")
    assert outcome.status == 0
    assert outcome.json["inputs"]["model"] == str(folder)
    assert "Time: about " in outcome.err


def test_a_dry_run_of_what_lies_elsewhere_still_binds_the_question(command, tmp_path: Path):
    outcome = command("audit", tmp_path / "elsewhere", "--dry-run")
    assert outcome.status == 0
    assert outcome.json["method"] == "audit"
    assert outcome.err.startswith("! ")


def test_a_screen_shows_a_line_for_each_model(folder: Path, data: Path, command, only_audit_methods, tmp_path: Path):
    (tmp_path / "list.txt").write_text(f"{folder} --data {data}\n{tmp_path}/none\n", "utf-8")
    outcome = command("screen", tmp_path / "list.txt")
    assert "for 2 models, one after the other" in outcome.err
    assert f"{tmp_path}/none" in outcome.err
    assert "! " in outcome.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (5401, "2 h"), (200_000, "3 days")],
)
def test_a_time_is_spoken_in_its_unit(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 MiB"), (2**20, "1.0 MiB"), (2**30, "1.0 GiB"), (15 * 2**30, "15 GiB"), (2**29, "0.5 GiB")]
)
def test_memory_is_spoken_in_its_unit(size: int, text: str):
    assert gibibytes(size) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lens", "recovery", "neurons", "norm_law", "drift", "diff", "detect"])
def test_methods_state_how_often_they_show_an_example(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Counted at the door of the model, within a factor of two."""
    counted = {"forward": 0, "gradient": 0}
    plain = Subject.forward

    def forward(self: Subject, encoded, **options):
        kind = "gradient" if torch.is_grad_enabled() else "forward"
        counted[kind] += len(encoded.layout.answers)
        return plain(self, encoded, **options)

    method = load(name)
    values = checks.supply(method.inputs, Request(name, {"model": ("organism:hijack-logo",)}, limit=32))
    monkeypatch.setattr(Subject, "forward", forward)
    run(method, values, root=tmp_path)
    stated = method.passes.of(32)
    for kind, count in counted.items():
        if max(count, getattr(stated, kind)) > 32:
            assert count / 2 <= getattr(stated, kind) <= 2 * count, (kind, counted, stated)
