"""An answer is kept whole or not at all, with where it came from, and a killed run goes on where it was."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

import plugin_method
from glasshouse.data.examples import Example, Examples
from glasshouse.engine import folders as places
from glasshouse.engine import runs
from glasshouse.engine.comparison import compare
from glasshouse.engine.method import load
from glasshouse.engine.provenance import PACKAGES
from glasshouse.engine.runs import Run, run
from glasshouse.organisms.organism import organism
from glasshouse.values.codec import digest, unpack
from glasshouse.values.errors import BadInput
from hostile import TEXTS, assert_dead
from plugins import environment, kill_after_shards, shards
from sample_findings import TextFinding

FILES = {"arrays.safetensors", "report.html", "rows.parquet", "run.json"}
DATA = plugin_method.prompts(7)


@pytest.fixture(autouse=True)
def _installed(installed: Path) -> None:
    """Every run here is of another package's method."""


def ask(root: Path, **options) -> Run:
    return run(load("count"), {"data": DATA}, plugin_method.Options(**options), root=root)


@pytest.fixture(scope="module")
def runs_made() -> list[Run]:
    """Runs that several tests read."""
    return []


@pytest.fixture
def whole(runs_made: list[Run], installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run. Tests leave it unchanged."""
    if not runs_made:
        runs_made.append(ask(tmp_path_factory.mktemp("whole")))
    return runs_made[0]


def strict(text: str):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if not folder.name.startswith("."))


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# What is kept


@pytest.mark.parametrize("seed", [0, 1], ids=["a finding with NaN", "a finding with numbers"])
def test_a_run_is_whole_and_comes_back(tmp_path: Path, seed: int):
    made = ask(tmp_path, seed=seed)
    assert {file.name for file in made.folder.iterdir()} == FILES
    assert list(tmp_path.iterdir()) == [made.folder]
    tree = strict((made.folder / "run.json").read_text("utf-8"))
    assert tree["inputs"]["data"]["identity"] == {"digest": DATA.digest, "count": 7, "source": "plugin_method"}
    assert tree["options"] == {"verdict": "pass", "seed": seed, "factor": 1.0}
    assert tree["schema"] == runs.SCHEMA
    said = {name: tree["method"][name] for name in ("name", "question", "paper")}
    assert said == {"name": "count", "question": "How long are the prompts?", "paper": ""}
    assert len(tree["method"]["source"]) == 64
    assert set(PACKAGES) < set(tree["versions"])
    back = Run.read(made.folder)
    assert back.finding == made.finding
    assert digest(back.finding) == digest(made.finding)
    assert back.facts == made.facts
    assert back.folder == made.folder


def test_the_identity_of_a_model_is_kept(finished: Run, seedling):
    card = finished.facts["inputs"]["model"]["identity"]
    assert card["weights"] == seedling.identity.weights
    assert (card["name"], card["architecture"]) == ("organism:seedling", "LlavaForConditionalGeneration")
    assert len(card["proof"]) == len(seedling.certificate.checks)
    assert all(check["passed"] for check in card["proof"])
    assert finished.facts["device"].startswith("cpu")


def test_rows_are_the_findings_rows(tmp_path: Path, finished: Run):
    for made in (ask(tmp_path), finished):
        kept = parquet.read_table(made.folder / "rows.parquet").to_pylist()
        assert repr(kept) == repr(made.finding.rows())  # repr, because what is not a number is not equal to itself


def test_whatever_a_stranger_says_is_kept(tmp_path: Path):
    """Half characters, escapes, markup and megabytes neither stop the writing nor change on the way."""
    said = Examples(Example(prompt=text) for text in TEXTS.values())
    made = run(load("count"), {"data": said}, root=tmp_path)
    assert Run.read(made.folder).finding == made.finding
    strict((made.folder / "run.json").read_text("utf-8"))
    assert_dead((made.folder / "report.html").read_text("utf-8"))
    kept = parquet.read_table(made.folder / "rows.parquet")
    assert kept.column_names == list(made.finding.rows()[0])
    assert kept["length"].to_pylist() == [len(text) for text in TEXTS.values()]
    assert kept["prompt"].to_pylist()[0] == TEXTS["script"]


def test_cells_of_several_kinds_are_kept(tmp_path: Path):
    """The first row does not decide which columns there are, nor of what type."""

    class Mixed(TextFinding):
        def rows(self):
            return [{"cell": 1, "large": None}, {"cell": "two", "sometimes": 0.5, "large": 10**30}, {"large": True}]

    runs._write_rows(Mixed("mixed", ()), tmp_path / "rows.parquet")
    kept = parquet.read_table(tmp_path / "rows.parquet").to_pydict()
    assert kept == {
        "cell": ["1", "two", None],
        "large": [None, str(10**30), "True"],
        "sometimes": [None, 0.5, None],
    }


def test_same_seed_same_finding(tmp_path: Path):
    one, two = (ask(tmp_path / place, seed=3).finding for place in ("a", "b"))
    assert digest(one) == digest(two)
    assert digest(ask(tmp_path / "c", seed=4).finding) != digest(one)


def test_runs_within_one_second_are_all_kept(tmp_path: Path):
    made = [ask(tmp_path).folder for _ in range(3)]
    assert len({*made}) == 3
    assert folders(tmp_path) == sorted(made)


# What fails


@pytest.mark.parametrize("place", ["save", "_write_rows", "rendered"])
def test_a_full_disk_leaves_no_half_written_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    with monkeypatch.context() as patch:
        patch.setattr(runs, place, full)
        with pytest.raises(BadInput, match=r"No space left on device.*run it again"):
            ask(tmp_path)
    assert folders(tmp_path) == []
    assert list(tmp_path.rglob("*.part")) == []
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    plugin_method.processed.clear()
    again = ask(tmp_path)
    assert plugin_method.processed == []
    assert again.facts["resumed"] == 4
    assert list(tmp_path.iterdir()) == [again.folder]


def test_a_disk_that_fills_up_between_shards_keeps_the_finished_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fill(done: int) -> None:
        if done == 2:
            monkeypatch.setattr("os.fsync", full)

    monkeypatch.setattr(plugin_method, "before_shard", fill)
    with pytest.raises(BadInput, match="No space left on device"):
        ask(tmp_path)
    monkeypatch.undo()
    assert folders(tmp_path) == []
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize("limit", [16, 700], ids=["at the arrays", "at run.json"])
def test_a_real_refusal_to_write_is_told_as_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int):
    """The system lets no file grow beyond the limit, so that each real writer fails in its own way."""
    write, (soft, hard) = runs._write, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(*args, **kwargs):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            return write(*args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(runs, "_write", limited)
    with pytest.raises(BadInput, match=r"File too large.*run it again"):
        ask(tmp_path)
    assert folders(tmp_path) == []
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4


def under_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "file").write_text("mine")
    return tmp_path / "file" / "runs"


def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def refuse(self: Path, *args, **kwargs) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    return tmp_path / "runs"


@pytest.mark.parametrize("place", [under_a_file, read_only])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Path, pytest.MonkeyPatch], Path]
):
    root = place(tmp_path, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match="choose another folder with --runs"):
        ask(root)
    monkeypatch.undo()
    assert plugin_method.processed == []
    assert sorted(tmp_path.rglob("*")) == before


def refuse_at(shards: int) -> Callable[[int], None]:
    def refuse(done: int) -> None:
        if done >= shards:
            raise BadInput("prompt 0: too short; write more")

    return refuse


@pytest.mark.parametrize("existing", [False, True], ids=["new folder", "the user's own empty folder"])
def test_a_refused_question_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool):
    root = tmp_path / "runs"
    if existing:
        root.mkdir()
    monkeypatch.setattr(plugin_method, "before_shard", refuse_at(0))
    with pytest.raises(BadInput, match="too short"):
        ask(root)
    assert sorted(tmp_path.rglob("*")) == ([root] if existing else [])


def test_a_question_refused_late_does_not_cost_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plugin_method, "before_shard", refuse_at(2))
    with pytest.raises(BadInput):
        ask(tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def rewritten(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tree = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(change(tree)))

    return rewrite


DAMAGE = {
    "no run.json": missing("run.json"),
    "no arrays": missing("arrays.safetensors"),
    "truncated run.json": lambda folder: os.truncate(folder / "run.json", 100),
    "truncated arrays": lambda folder: os.truncate(folder / "arrays.safetensors", 20),
    "run.json of bytes": lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x00"),
    "deeply nested": lambda folder: (folder / "run.json").write_text("[" * 100_000),
    "a list": rewritten(lambda tree: [tree]),
    "a later schema": rewritten(lambda tree: {**tree, "schema": 99}),
    "no schema": rewritten(lambda tree: {}),
    "no finding": rewritten(lambda tree: {name: item for name, item in tree.items() if name != "finding"}),
    "no method": rewritten(lambda tree: {name: item for name, item in tree.items() if name != "method"}),
    "an unknown method": rewritten(lambda tree: {**tree, "method": {"name": "divination"}}),
    "another finding": rewritten(lambda tree: {**tree, "finding": {"is": "Popen", "args": ["true"]}}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run_folder_is_refused_in_one_line(whole: Run, tmp_path: Path, damage: Callable[[Path], None]):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    damage(folder)
    with pytest.raises(BadInput) as refused:
        Run.read(folder)
    assert len(str(refused.value)) > 10
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [lambda found: found.pop("drawn"), lambda found: found.update(colour="red"), lambda found: found.update(mean=3)],
    ids=["a field that was not there yet", "one that is no more", "one of another type"],
)
def test_a_run_of_another_build_is_refused_with_its_folder_and_the_fix(
    whole: Run, tmp_path: Path, change: Callable[[dict], object]
):
    folder = shutil.copytree(whole.folder, tmp_path / "run")
    tree = json.loads((folder / "run.json").read_text())
    change(tree["finding"])
    (folder / "run.json").write_text(json.dumps(tree))
    with pytest.raises(
        BadInput, match=r"written by another version of count \(CountFinding.*\); run it again"
    ) as refused:
        Run.read(folder)
    assert str(refused.value).startswith(f"{folder}: ")


# What differs


def test_equal_runs_do_not_differ(tmp_path: Path):
    assert compare(ask(tmp_path, seed=0), ask(tmp_path, seed=0)) == []


def test_differences_are_exactly_what_differs(tmp_path: Path):
    one, two = ask(tmp_path), ask(tmp_path, factor=2.0, verdict="concern")
    found = {row["what"]: (row["first"], row["second"]) for row in compare(one, two)}
    first, second = one.finding.rows()[0], two.finding.rows()[0]
    means = {name: (first[name], second[name]) for name in ("mean", "mean_low", "mean_high")}
    expected = {
        "options.factor": (1.0, 2.0),
        "options.verdict": ("pass", "concern"),
        "verdict": ("pass", "concern"),
        "headline": (one.finding.headline, two.finding.headline),
    }
    for number in range(len(DATA)):
        prompt, length = "a" * (number + 1), float(number + 1)
        expected[f"{prompt}: length"] = (length, 2 * length)
        expected |= {f"{prompt}: {name}": pair for name, pair in means.items()}
    assert found == expected


def test_rows_that_only_one_run_has_are_told(tmp_path: Path):
    supplied = ({"data": plugin_method.prompts(n)} for n in (3, 5))
    one, two = (run(load("count"), given, root=tmp_path) for given in supplied)
    found = [row["what"] for row in compare(one, two)]
    assert "inputs.data.identity.count" in found
    assert sum(name.startswith("aaaaa:") for name in found) > 0


# Killed


SLOW = """
import plugin_method
from glasshouse.engine.method import load
from glasshouse.engine.runs import run
run(load("count"), {"data": plugin_method.prompts(7)}, root="runs")
"""


def test_kill_9_in_the_middle_loses_no_shard_and_leaves_no_half_run(tmp_path: Path, installed: Path):
    process = kill_after_shards(2, SLOW, tmp_path, environment(installed, **{plugin_method.DELAY: "0.4"}))
    root = tmp_path / "runs"
    kept = shards(root)
    assert folders(root) == []
    assert 2 <= len(kept) < 4
    # What a kill in the middle of writing the next shard leaves; it must not be taken for one.
    torn = kept[-1].with_name(f".{kept[-1].name}.{process.pid}.part")
    torn.write_bytes(kept[-1].read_bytes()[:40])

    again = ask(root)
    assert again.facts["resumed"] == len(kept)
    assert len(plugin_method.processed) == len(DATA) - plugin_method.SHARD * len(kept)
    assert digest(again.finding) == digest(ask(tmp_path / "uninterrupted").finding)
    assert list(root.iterdir()) == [again.folder]


@pytest.mark.parametrize("place", ["save", "_write_rows", "rendered"])
def test_a_kill_while_writing_would_leave_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    """What is there at that moment is what a kill at that moment leaves."""
    write, there = getattr(runs, place), []

    def watched(*args):
        there.append(folders(tmp_path))
        return write(*args)

    monkeypatch.setattr(runs, place, watched)
    assert ask(tmp_path).folder in folders(tmp_path)
    assert there == [[]]


def test_ctrl_c_keeps_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(plugin_method, "before_shard", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(tmp_path)
    assert folders(tmp_path) == []
    assert ask(tmp_path).facts["resumed"] == 2


def test_shards_of_other_options_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_write_rows", full)
        with pytest.raises(BadInput):
            ask(tmp_path)
    made = ask(tmp_path, factor=2.0)
    assert made.facts["resumed"] == 0
    assert torch.equal(made.finding.lengths, 2.0 * torch.arange(1.0, 8))


def test_what_a_file_names_is_all_that_is_built():
    """A run folder from a stranger cannot make us build anything but the method's finding."""
    with pytest.raises(BadInput, match="not a kind of CountFinding"):
        unpack(plugin_method.CountFinding, {"is": "Run"})


def test_a_run_under_an_intervention_says_so(seedling, finished: Run, tmp_path):
    from glasshouse.model.taps import edited
    from glasshouse.values.changes import Plan, Scale
    from glasshouse.values.sites import language

    plan = Plan({language.residual[0]: Scale(0.5)})
    examples = organism("seedling").examples[:2]
    method = load("lens")
    with edited(seedling, plan):
        changed = runs.run(method, {"model": seedling, "data": examples}, root=tmp_path)
    assert finished.facts["inputs"]["model"]["identity"]["changes"] == []
    assert changed.facts["inputs"]["model"]["identity"]["changes"] == [plan.digest()]
    assert seedling.changes == ()


def test_the_same_question_is_not_asked_twice_at_once(tmp_path):
    """Nor by a third, after a second was turned away."""
    with places.workplace(tmp_path, "key") as work:
        for _ in range(2):
            with pytest.raises(BadInput, match="another process"), places.workplace(tmp_path, "key"):
                pass
        assert work.is_dir()
    assert list(tmp_path.iterdir()) == []
    with places.workplace(tmp_path, "key") as work:  # released with its holder
        (work / "part").touch()
