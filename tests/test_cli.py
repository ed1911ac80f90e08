"""What can be typed: exit statuses that gate a pipeline, JSON for machines, and one line for every mistake."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from pyarrow import Table, parquet
from safetensors.torch import load_file, save_file

import plugin_method
import tiny
from command_line import assert_refused, on_disk
from glasshouse import cli, organism_commands
from glasshouse.data import network
from glasshouse.engine.runs import Run
from glasshouse.model.patches import write_patch
from glasshouse.model.subject import Subject
from glasshouse.organisms import shelf
from glasshouse.organisms.recipes import RECIPES
from glasshouse.values.codec import pack
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site

SEEDLING = "organism:seedling"
pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five prompts."""
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"prompt": "a" * number}) + "\n" for number in range(1, 6)))
    return file


@pytest.fixture
def at_hand(seedling: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The organism need not be built for every command."""
    monkeypatch.setattr(shelf, "take", lambda name: seedling)


# What succeeds


@pytest.mark.parametrize(
    ("verdict", "status"), [("pass", 0), ("concern", 1), ("fail", 1), ("inconclusive", 3)], ids=lambda word: str(word)
)
def test_the_verdict_is_the_exit_status(command, data: Path, verdict: str, status: int):
    outcome = command("run", "count", "--data", data, "--verdict", verdict)
    assert outcome.status == status
    assert outcome.out.startswith(f"{verdict.upper()}  5 prompts are")
    assert outcome.err == ""
    (run,) = Path("runs").iterdir()
    for line in (f"Run:  {run}", f"Page: {run}/report.html", f"Next: glasshouse report {run}"):
        assert line in outcome.out.splitlines()
    again = command("report", run)
    assert again.status == status
    assert again.out.splitlines()[-1] == f"Next: glasshouse compare {run} ANOTHER"  # not what was just typed


def test_json_is_all_there_is(command, data: Path):
    outcome = command("run", "count", "--data", data, "--json")
    made = Run.read(outcome.json["run"])
    assert outcome.json["finding"] == pack(made.finding)[0]
    assert outcome.json["verdict"] == "pass"
    assert outcome.err == ""
    again = command("report", made.folder, "--json")
    assert again.json == outcome.json
    compared = command("compare", made.folder, made.folder, "--json")
    assert (compared.status, compared.json) == (0, [])
    listed = command("list", "--json").json
    assert {"lens", "spectrum", "count"} <= {entry["name"] for entry in listed}


def test_comparing_tells_what_differs(command, data: Path):
    first, second = (
        command("run", "count", "--data", data, "--factor", factor, "--json").json["run"] for factor in (1, 2)
    )
    compared = command("compare", first, second)
    assert compared.status == 0
    assert "options.factor" in compared.out
    found = {row["what"]: (row["first"], row["second"]) for row in command("compare", first, second, "--json").json}
    assert found["options.factor"] == (1.0, 2.0)
    assert found["aaa: length"] == (3.0, 6.0)
    assert command("compare", first, first).out == "no difference\n"


def test_limit_takes_the_first(command, data: Path):
    for limit, count in ((2, 2), (99, 5)):
        facts = command("run", "count", "--data", data, "--limit", limit, "--json").json
        assert facts["inputs"]["data"]["identity"]["count"] == count


def test_a_dry_run_prints_what_from_takes(command, data: Path, tmp_path: Path):
    before = on_disk(tmp_path)
    dry = command("run", "count", "--data", data, "--factor", "2.5", "--limit", 3, "--device", "cpu", "--dry-run")
    assert on_disk(tmp_path) == before
    assert dry.json["options"] == {"verdict": "pass", "seed": 0, "factor": 2.5}
    assert (dry.json["limit"], dry.json["inputs"], dry.json["opening"]["device"]) == (3, {"data": str(data)}, "cpu")
    Path("asked.json").write_text(dry.out)
    assert command("run", "count", "--from", "asked.json", "--dry-run").json == dry.json
    assert command("run", "count", "--from=asked.json", "--dry-run").json == dry.json
    made = command("run", "count", "--from", "asked.json", "--json").json
    assert made["options"]["factor"] == 2.5
    assert made["inputs"]["data"]["identity"]["count"] == 3


def test_a_flag_stands_above_the_file(command, data: Path):
    Path("asked.json").write_text(command("run", "count", "--data", data, "--factor", 2, "--seed", 7, "--dry-run").out)
    tree = command("run", "count", "--from", "asked.json", "--factor", 3, "--limit", 1, "--dry-run").json
    assert tree["options"] == {"verdict": "pass", "seed": 7, "factor": 3.0}
    assert tree["limit"] == 1


@pytest.mark.parametrize("flag", ["--download", "--remote-code"])
def test_leave_to_fetch_and_to_run_code_is_typed_each_time(command, data: Path, flag: str):
    dry = command("run", "count", "--data", data, flag, "--dry-run")
    Path("asked.json").write_text(dry.out)
    assert command("run", "count", "--from", "asked.json", flag, "--dry-run").json == dry.json
    assert_refused(
        command("run", "count", "--from", "asked.json", "--dry-run"), f"--from asked.json: it asks for {flag}"
    )
    assert_refused(command("run", "count", "--from", "asked.json"), "which no file may permit; type it as well")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)], ids=str)
def test_nothing_typed_says_what_can_be(command, words):
    outcome = command(*words)
    assert (outcome.status, outcome.err) == (0, "")
    for name in cli.COMMANDS:
        assert f"  glasshouse {name} " in outcome.out
    assert "Next: glasshouse" in outcome.out


@pytest.mark.parametrize(("words", "denied"), [((), True), (("--download",), False)], ids=["", "--download"])
def test_the_network_is_denied_without_download(command, monkeypatch: pytest.MonkeyPatch, words, denied: bool):
    seen: list[bool] = []
    monkeypatch.setitem(cli.COMMANDS, "probe", lambda rest: seen.append(network.denied()) or 0)
    assert command("probe", *words).status == 0
    assert seen == [denied]
    assert not network.denied()


def test_the_list_is_of_questions_by_need(command):
    said = command("list").out
    assert said.index("Needs weights alone:") < said.index("count ") < said.index("Needs forward passes:")
    assert "What does each layer already predict" in said


@pytest.mark.parametrize("words", [*((name,) for name in cli.COMMANDS), ("run", "count")], ids=" ".join)
def test_every_command_says_what_it_takes(command, words: tuple[str, ...]):
    outcome = command(*words, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith(f"usage: glasshouse {' '.join(words)} ")


def test_the_lens_on_the_seedling(command, at_hand):
    outcome = command("run", "lens", "--model", SEEDLING, "--limit", 3, "--images", 1)
    assert outcome.status == 0
    assert outcome.out.startswith("DESCRIBED  ")
    assert max(map(len, outcome.out.split("\nRun: ")[0].splitlines())) <= 80
    again = command("report", next(Path("runs").iterdir())).out
    assert again.splitlines()[:-1] == outcome.out.splitlines()[:-1]


def test_export_makes_a_checkpoint_that_is_proved(command, tmp_path: Path, seedling: Subject):
    weight = "model.multi_modal_projector.linear_2.weight"
    shape = dict(seedling.model.named_parameters())[weight].shape
    patch = write_patch(Patch.dense(weight, torch.ones(shape)), tmp_path / "ones.safetensors")
    first = command("export", SEEDLING, "plain")
    assert (first.status, first.out.splitlines()[0]) == (0, "plain")
    proved = command("anatomy", "plain", "--prove")
    assert proved.status == 0
    assert len([line for line in proved.out.splitlines() if line.startswith("  proved")]) > 10
    assert "FAILED" not in proved.out
    shown = command("anatomy", "plain", "--json").json
    assert shown["anatomy"] == pack(seedling.anatomy)[0]
    assert shown["proof"] is None

    assert command("export", SEEDLING, "patched", "--patch", patch).status == 0
    plain, patched = (load_file(Path(name) / "model.safetensors") for name in ("plain", "patched"))
    changed = {name for name in plain if not torch.equal(plain[name], patched[name])}
    assert len(changed) == 1
    assert changed.pop().endswith("multi_modal_projector.linear_2.weight")

    before = on_disk(tmp_path)
    refused = command("export", SEEDLING, "plain")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == "glasshouse: plain: exists already; name a new folder\n"
    assert on_disk(tmp_path) == before


# What is refused: one line, status 2, nothing changed on disk


def lines(*records: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        said = (record if isinstance(record, str) else json.dumps(record) for record in records)
        (folder / "bad.jsonl").write_text("\n".join(said))

    return write


def nothing(folder: Path) -> None:
    """There is nothing to prepare."""


def asked(**changes: object) -> Callable[[Path], None]:
    """A file for --from that was changed by hand."""

    def write(folder: Path) -> None:
        tree = {"method": "count", "inputs": {}, "options": {}, **changes}
        (folder / "asked.json").write_text(json.dumps(tree))

    return write


def raw(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def pictured(save: Callable[[Path], object]) -> Callable[[Path], None]:
    """Examples whose second picture is bad."""

    def write(folder: Path) -> None:
        Image.new("RGB", (64, 64), "red").save(folder / "good.png")
        save(folder)
        names = ["good.png", next(file.name for file in folder.iterdir() if file.stem == "bad")]
        said = (json.dumps({"prompt": "what ?", "image": name, "answer": "red"}) for name in names)
        (folder / "bad.jsonl").write_text("\n".join(said))

    return write


def animated(folder: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "bad.gif", save_all=True, append_images=frames[1:])


def bomb(folder: Path) -> None:
    """A header that promises more pixels than anyone wants to decode."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + image)


BAD_PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "corrupt": (raw("bad.png", b"\x89PNG\r\n\x1a\nnot really"), "bad.png"),
    "no image": (raw("bad.png", b"hello"), "not an image"),
    "animated": (animated, "animated"),
    "CMYK": (lambda folder: Image.new("CMYK", (8, 8)).save(folder / "bad.jpg"), "CMYK"),
    "alpha": (lambda folder: Image.new("RGBA", (8, 8), (255, 0, 0, 9)).save(folder / "bad.png"), "transparency"),
    "bomb": (bomb, "pixels"),
}
COUNT = ("run", "count", "--data", "bad.jsonl")
FROM = ("run", "count", "--from", "asked.json")
REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...], str]] = {
    "unknown command": (nothing, ("divine",), "divine: no such command; there are list"),
    "unknown method": (nothing, ("run", "divination"), "divination: no such method"),
    "no method": (nothing, ("run", "--model", "."), "name a method first"),
    "a word for list": (nothing, ("list", "everything"), "takes only --json"),
    "unknown flag": (nothing, ("run", "count", "--colour", "red"), "--colour"),
    "a word for a number": (nothing, ("run", "count", "--limit", "few"), "--limit"),
    "a word that is no choice": (nothing, ("run", "count", "--verdict", "maybe"), "--verdict"),
    "a flag without its value": (nothing, ("run", "count", "--data"), "--data: its value is missing"),
    "no model named": (nothing, ("anatomy",), "glasshouse anatomy --help"),
    "too many words": (nothing, ("report", ".", "b"), "glasshouse report --help"),
    "no data": (nothing, ("run", "count"), "count needs the examples to show the model: --data DATA"),
    "no model": (nothing, ("run", "lens"), "lens needs the model to examine: --model MODEL"),
    "no such model": (nothing, ("run", "lens", "--model", "nobody/nothing"), "--download"),
    "no such dtype": (
        lines({"prompt": "x"}),
        ("run", "lens", "--model", ".", "--data", "bad.jsonl", "--dtype", "float3"),
        "dtype float3: write one of",
    ),
    "no such file": (nothing, COUNT, "bad.jsonl: no such file"),
    "a file of unknown kind": (raw("bad.txt", b"prompt\n"), ("run", "count", "--data", "bad.txt"), "cannot tell"),
    "an empty file": (raw("bad.jsonl", b""), COUNT, "holds no examples"),
    "a broken line": (lines({"prompt": "good"}, "", '{"prompt": '), COUNT, "bad.jsonl:3: this line is not JSON"),
    "a line of bytes": (raw("bad.jsonl", b'{"prompt": "good"}\n\xff\xfe\n'), COUNT, "bad.jsonl:2"),
    "a line that is a list": (lines([1, 2]), COUNT, "bad.jsonl item 0: this item is not a JSON object"),
    "a deep line": (lines("[" * 100_000), COUNT, "bad.jsonl: this file is not JSON (it is nested too deeply)"),
    "no prompt": (lines({"question": "what ?"}), COUNT, "bad.jsonl:1: needs 'prompt'"),
    "a picture that is not there": (lines({"image": "gone.png"}), COUNT, "gone.png is not there"),
    "limit 0": (lines({"prompt": "x"}), (*COUNT, "--limit", "0"), "--limit 0: must be at least 1"),
    "limit below 0": (lines({"prompt": "x"}), (*COUNT, "--limit", "-3"), "--limit -3: must be at least 1"),
    "parquet without columns": (
        lambda folder: parquet.write_table(Table.from_pylist([{"question": "what ?"}]), folder / "bad.parquet"),
        ("run", "count", "--data", "bad.parquet"),
        "bad.parquet: needs 'prompt'",
    ),
    "an adapter on an organism": (
        nothing,
        ("run", "lens", "--model", SEEDLING, "--adapter", "."),
        "opened as it was grown; leave out adapter",
    ),
    "a dtype for an organism": (nothing, ("export", SEEDLING, "new", "--dtype", "float16"), "leave out dtype"),
    "no parquet": (raw("bad.parquet", b"PAR1 no"), ("run", "count", "--data", "bad.parquet"), "not a readable Parquet"),
    "a folder without images": (
        lambda folder: (folder / "empty").mkdir(),
        ("run", "count", "--data", "empty"),
        "no image in this folder",
    ),
    "unknown option in a file": (asked(options={"colour": 1}), FROM, "unknown option 'colour'; the options are "),
    "ill-typed option in a file": (asked(options={"factor": "two"}), FROM, "factor"),
    "options that are a list": (asked(options=[1]), FROM, "options must be an object"),
    "unknown field in a file": (asked(colour=1), FROM, "'colour'"),
    "unknown opening in a file": (asked(opening={"colour": 1}), FROM, "'colour'"),
    "ill-typed limit in a file": (asked(limit="few"), FROM, "limit"),
    "another method's file": (asked(method="lens"), FROM, "that file asks lens, the command says count"),
    "a model it does not take": (asked(inputs={"model": "x"}), FROM, "count takes no input 'model'; it takes data"),
    "no such file to take from": (nothing, FROM, "--from asked.json: no such file; a dry run prints one"),
    "a file that is no JSON": (raw("asked.json", b"{"), FROM, "asked.json: not a readable request"),
    "a file that is a list": (raw("asked.json", b"[1]"), FROM, "not a readable request (not a JSON object"),
    "an endless file": (nothing, (*FROM[:-1], "/dev/zero"), "/dev/zero: not a readable request (a folder, pipe"),
    "a file of bytes": (raw("asked.json", b"\xff\xfe"), FROM, "asked.json: not a readable request"),
    "a deep file": (raw("asked.json", b"[" * 100_000), FROM, "asked.json: not a readable request"),
    "an option that is no number": (nothing, ("run", "count", "--factor", "x"), "--factor x: write a number"),
    "a limit that is no number": (nothing, ("run", "count", "--limit", "2.5"), "--limit 2.5: write a whole number"),
    "a word too many": (nothing, ("run", "count", "stray"), "stray: no flag takes this word"),
    "a device for a drawing": (nothing, ("anatomy", SEEDLING, "--device", "cpu"), "leave out device"),
    "no such dtype for a drawing": (nothing, ("anatomy", ".", "--dtype", "half"), "dtype half: write one"),
    "no such device for a drawing": (nothing, ("anatomy", ".", "--device", "gpu"), "device gpu: no such device"),
    "nothing to draw": (nothing, ("anatomy",), "MODEL is missing: folder, hub name or organism:NAME"),
    "no such depth": (nothing, ("audit", ".", "--depth", "deep"), "--depth deep: write one of quick, standard"),
    "a run.json that is a list": (
        lambda folder: (folder / "run").mkdir() or (folder / "run" / "run.json").write_text("[1]"),
        ("report", "run"),
        "run: not a whole run folder (not a JSON object)",
    ),
    "no run in a folder": (lambda folder: (folder / "run").mkdir(), ("compare", "run", "run"), "neither a run nor"),
    "no run": (nothing, ("report", "nowhere"), "nowhere: no such folder"),
    "no runs to compare": (nothing, ("compare", "nowhere", "neither"), "nowhere: no such folder"),
    "no patch": (nothing, ("export", SEEDLING, "new", "--patch", "gone"), "gone: not a readable"),
    "a run folder under a file": (
        lambda folder: (lines({"prompt": "x"})(folder), (folder / "file").write_text("mine")),
        (*COUNT, "--runs", "file/runs"),
        "choose another folder with --runs",
    ),
    "an export under a file": (raw("file", b"mine"), ("export", SEEDLING, "file/new"), "choose another folder"),
    "escapes": (nothing, ("\x1b[31m\x1b]0;mine\x07\u202e",), r"\x1b[31m\x1b]0;mine\x07\x202e: no such command"),
    "a lone surrogate": (nothing, ("run", "count", "--data", "a\udcffb"), r"a\xdcffb"),
    **{
        f"picture: {name}": (pictured(save), ("run", "lens", "--model", SEEDLING, "--data", "bad.jsonl"), said)
        for name, (save, said) in BAD_PICTURES.items()
    },
}  # fmt: skip


@pytest.mark.parametrize(("prepare", "words", "said"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_told_in_one_line_and_changes_nothing(command, at_hand, tmp_path: Path, prepare, words, said):
    prepare(tmp_path)
    before = on_disk(tmp_path)
    assert_refused(command(*words), said)
    assert on_disk(tmp_path) == before


def test_a_question_refused_while_it_is_asked_leaves_no_folder(command, data: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(done: int) -> None:
        raise BadInput("prompt 0: too short; write more")

    monkeypatch.setattr(plugin_method, "before_shard", refuse)
    before = on_disk(Path())
    assert_refused(command("run", "count", "--data", data, "--runs", "n1/n2/n3"), "too short; write more")
    assert on_disk(Path()) == before


def test_an_unknown_organism_is_told(command):
    assert_refused(command("run", "lens", "--model", "organism:unicorn"), "organism:unicorn: no such organism; ")
    assert_refused(command("run", "lens", "--model", "organism:seedlin"), "did you mean seedling or")
    unshelved = next(name for name in RECIPES if name not in shelf.names())
    fix = f"glasshouse organism grow {unshelved} FOLDER"
    assert_refused(command("run", "lens", "--model", f"organism:{unshelved}"), fix)


def test_organisms_are_listed(command):
    listed = command("organism", "list")
    assert listed.status == 0
    assert "refusal-noise" in listed.out
    assert "Next: glasshouse organism show" in listed.out
    entries = command("organism", "list", "--json").json
    assert {entry["name"] for entry in entries} == set(RECIPES)
    assert {entry["name"] for entry in entries if entry["on_shelf"]} == set(shelf.names())


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ((), "name one of list, show, grow, verify"),
        (("feed",), "feed is none of list, show, grow, verify"),
        (("show", "unicorn"), "no such organism"),
        (("grow", "refusal-noisy", "new"), "did you mean refusal-noise"),
        (("grow", "base", "."), "exists already; name a new folder"),
        (("verify", "."), "no organism.json in this folder"),
        (("verify", "base", "--share", "0"), "a share of 0"),
    ],
)
def test_bad_requests_about_organisms_are_refused(command, words, fix):
    before = on_disk(Path())
    assert_refused(command("organism", *words), fix)
    assert on_disk(Path()) == before


def test_growing_stops_early_when_there_is_no_time_for_it(monkeypatch):
    clock = iter(range(0, 10**9, 600))
    monkeypatch.setattr(organism_commands.time, "monotonic", lambda: next(clock))
    told = organism_commands._within(5, None)
    told("learning", 1, 100)
    with pytest.raises(BadInput, match="would end about 50 minutes after the start, --within says 5"):
        told("learning", 26, 100)
    organism_commands._within(None, None)("learning", 25, 100)


def test_what_is_gone_on_with_is_measured_from_where_it_goes_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(organism_commands.time, "monotonic", lambda: now[0])
    told = organism_commands._within(5, None)
    for now[0], done in ((6.0, 401), (12.0, 402), (144.0, 424)):
        told("learning", done, 500)
    now[0] = 156.0
    with pytest.raises(BadInput, match="learning: would end about 10 minutes after the start, --within says 5"):
        told("learning", 426, 500)


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[Path], object]]:
    """What happens where an organism is grown; nothing is."""
    doing: dict[str, Callable[[Path], object]] = {"grow": lambda keep: None}

    class Card:
        measured: dict[str, object] = {}  # noqa: RUF012 - never written to

    class Grown:
        card = Card()

    def grow(recipe, name, parents, *, keep, **more) -> Grown:
        doing["grow"](keep)
        return Grown()

    monkeypatch.setattr("glasshouse.organisms.grow.grow", grow)
    monkeypatch.setattr(shelf, "put_down", lambda grown, folder: folder.mkdir(parents=True))
    return doing


def refusing(keep: Path) -> None:
    raise BadInput("organism:base: is not here; install glasshouse again")


def test_a_refused_growth_leaves_nothing(command, growing, monkeypatch: pytest.MonkeyPatch):
    growing["grow"] = refusing
    assert_refused(command("organism", "grow", "benign", "new/er/one"), "install glasshouse again")
    assert on_disk(Path()) == {}
    Path(".new.growing").mkdir()  # left behind by an earlier build
    assert_refused(command("organism", "grow", "benign", "new"), "install glasshouse again")
    assert on_disk(Path()) == {}
    monkeypatch.setattr(organism_commands, "ROOM", 2**80)
    assert_refused(command("organism", "grow", "benign", "new/er/one"), "choose another disk")
    assert on_disk(Path()) == {}


def test_a_growth_refused_late_keeps_what_was_learnt(command, growing):
    growing["grow"] = lambda keep: ((keep / "tune.safetensors").write_bytes(b"learnt"), refusing(keep))
    assert_refused(command("organism", "grow", "benign", "new"), "install glasshouse again")
    assert on_disk(Path())[".new.growing/tune.safetensors"] == b"learnt"


def test_what_is_to_be_typed_after_growing_can_be(command, growing):
    outcome = command("organism", "grow", "benign", "my new; one")
    assert outcome.status == 0
    assert outcome.out.splitlines()[-1] == "Next: glasshouse organism verify 'my new; one'"
    assert list(on_disk(Path())) == ["my new; one"]


def test_stages_share_the_time_there_is(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(organism_commands.time, "monotonic", lambda: now[0])
    told = organism_commands._within(5, None)
    for now[0], stage, done in ((0, "seeing", 0), (60, "seeing", 25), (240, "seeing", 100), (240, "answering", 0)):
        told(stage, done, 100)
    now[0] = 270
    with pytest.raises(BadInput, match="answering: would end about 6 minutes after the start, --within says 5"):
        told("answering", 25, 100)


@pytest.mark.parametrize("name", ["unknown flag", "a word for a number", "no model named"])
def test_it_is_one_plain_line_on_a_terminal_too(command, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    _, words, said = REFUSED[name]
    assert_refused(command(*words), said)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sound checkpoint; to be copied before it is spoiled."""
    return tiny.checkpoint("llama", tmp_path_factory.mktemp("sound") / "llama")


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        tensors = load_file(model / "model.safetensors")
        change(tensors)
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    return spoil


def configured(**fields: object) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, **fields}))

    return spoil


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def half_downloaded(model: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (model / "model.safetensors").rename(model / names[0])
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def unprocessed(model: Path) -> None:
    for file in model.glob("*token*"):
        file.unlink()


FIRST = "model.layers.0.mlp.up_proj.weight"
SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle only": (pickled, "only pickle weights (pytorch_model.bin)"),
    "a shard missing": (half_downloaded, "1 of 2 shards are missing, first model-00002-of-00002.safetensors"),
    "truncated": (lambda model: os.truncate(model / "model.safetensors", 5000), "not a whole safetensors file"),
    "other shapes": (configured(intermediate_size=24), "do not belong together"),
    "a weight missing": (weights(lambda tensors: tensors.pop(FIRST)), "weights are missing, first"),
    "NaN": (weights(lambda tensors: tensors[FIRST].fill_(float("nan"))), "could not be proved"),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "no safetensors weights"),
    "no configuration": (lambda model: (model / "config.json").unlink(), "no config.json"),
    "broken configuration": (lambda model: os.truncate(model / "config.json", 20), "configuration"),
    "an unknown family": (configured(model_type="unicorn"), "configuration"),
    "its own code": (
        configured(model_type="unicorn", auto_map={"AutoConfig": "code.Config"}),
        "--remote-code",
    ),
    "no tokenizer": (unprocessed, "no tokenizer is in this folder"),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_checkpoint_is_reported_in_one_line(command, llama: Path, tmp_path: Path, spoil, reason: str):
    shutil.copytree(llama, tmp_path / "model")
    spoil(tmp_path / "model")
    before = on_disk(tmp_path)
    assert_refused(command("export", "model", "new"), reason)
    assert on_disk(tmp_path) == before


def test_an_anatomy_that_cannot_be_proved_is_a_failure_with_its_reason(command, llama: Path, tmp_path: Path):
    """Drawing is what one does to find out, so it draws, says what failed, and fails."""
    shutil.copytree(llama, tmp_path / "model")
    SPOILT["NaN"][0](tmp_path / "model")
    outcome = command("anatomy", "model", "--prove")
    assert outcome.status == 1
    assert f"the weight {FIRST} holds NaN" in " ".join(outcome.out.split())
    assert command("anatomy", "model").status == 0  # the configuration is sound


def test_a_sound_checkpoint_is_none_of_this(command, data: Path, llama: Path):
    outcome = command("run", "lens", "--model", llama, "--data", data, "--json")
    assert outcome.status == 0
    assert outcome.json["inputs"]["model"]["identity"]["family"] == "llama"
    assert Site.parse("language.residual[2]").layer < outcome.json["finding"]["examples"]


def test_an_organism_brings_the_base_it_was_made_of(command, tmp_path: Path):
    outcome = command("run", "spectrum", "--model", "organism:hijack-logo", "--json", "--runs", tmp_path)
    assert outcome.json["inputs"]["base"]["identity"]["name"] == "organism:base"
    assert "benign" not in outcome.json["inputs"]
    refused = command("run", "spectrum", "--model", "organism:base", "--runs", tmp_path / "none")
    assert refused.status == 2
    assert "spectrum needs the model it was fine-tuned from: --base MODEL" in refused.err


def test_an_organism_in_which_nothing_was_planted_has_no_trigger(command, tmp_path: Path):
    refused = command("run", "drift", "--model", "organism:benign", "--runs", tmp_path / "none")
    assert refused.status == 2
    assert "organism:benign brings none" in refused.err
    assert not (tmp_path / "none").exists()
