"""What every method promises, whatever it asks: each runs on the samples that the kinds of its inputs supply.

Nothing here knows a method by name: quick options and the fewest examples stand in the method's own file.
"""

import ast
import html
import inspect
import io
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

import tiny
from glasshouse import cli
from glasshouse.data.examples import Example, Examples
from glasshouse.engine import kinds
from glasshouse.engine.binding import require
from glasshouse.engine.catalogue import Entry, catalogue
from glasshouse.engine.method import Method, load, method
from glasshouse.engine.provenance import code
from glasshouse.engine.runs import Run, run
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.proof import hook_count
from glasshouse.model.subject import Subject
from glasshouse.organisms import seedling as untrained
from glasshouse.report.terminal import show_finding
from glasshouse.values.blocks import Chart, Heatmap, Metric
from glasshouse.values.codec import digest, pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Verdict
from samples import samples

ENTRIES = catalogue()
each_method = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
PROMPTS = Examples(Example(prompt=f"what is {word} ?", answer=word) for word in ("red", "blue", "a square", "green"))


@dataclass
class Answer:
    """A method's run on its samples, a second run that was killed after its first unit of work, and what both left of
    the models."""

    asked: Method[Finding]
    run: Run
    again: Run
    killed: bool
    """Whether the second run was killed; a method without units of work runs to its end."""
    untouched: bool


def state(values: dict[str, Any]) -> list[Any]:
    """Weights, hooks and mode of every model."""
    models = [value.model for value in values.values() if isinstance(value, Subject)]
    hooks = [hook_count(value) for value in values.values() if isinstance(value, Subject)]
    return [*map(weight_hash, models), *hooks, *(model.training for model in models)]


def asked(name: str, values: dict[str, Any], root: Any) -> Answer:
    chosen = load(name)
    before = state(values)
    made = run(chosen, values, chosen.small, root=root)
    second, killed = partial(run, chosen, values, chosen.small, root=root, name="again"), False
    try:
        again = second(progress=kill)
    except KeyboardInterrupt:
        again, killed = second(), True
    return Answer(chosen, made, again, killed, state(values) == before)


def kill(what: str, done: int, total: int) -> None:
    """As progress: the process ends after the first unit."""
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answer]:
    """`answered("lens")`: asked once in a session."""
    known: dict[str, Answer] = {}

    def ask(name: str) -> Answer:
        if name not in known:
            known[name] = asked(name, samples(load(name)), tmp_path_factory.mktemp("contract"))
        return known[name]

    return ask


@pytest.fixture
def answer(entry: Entry, answered: Callable[[str], Answer]) -> Answer:
    return answered(entry.name)


@each_method
def test_same_seed_same_finding(answer: Answer):
    """Also where the second run was killed, and continued with what the first unit had left on disk."""
    assert digest(answer.again.finding) == digest(answer.run.finding)
    assert (answer.again.facts["resumed"] >= 1) == answer.killed


@each_method
def test_a_finding_goes_to_disk_and_comes_back(answer: Answer):
    back = Run.read(answer.run.folder)
    assert back.finding == answer.run.finding
    assert (back.finding.headline, back.finding.verdict) == (answer.run.finding.headline, answer.run.finding.verdict)
    assert type(back.finding) is answer.asked.finding


@each_method
def test_weights_and_hooks_are_as_before(answer: Answer):
    assert answer.untouched


@each_method
def test_every_surface_shows_it(answer: Answer):
    finding = answer.run.finding
    screen = Console(record=True, width=80, markup=False, emoji=False, highlight=False, file=io.StringIO())
    show_finding(screen, finding)
    assert screen.export_text().partition("\n")[0].startswith(str(finding.verdict).upper())
    page = (answer.run.folder / "report.html").read_text("utf-8")
    for text in (finding._repr_html_(), page):
        assert f">{finding.verdict}<" in text
    assert answer.asked.page.question in html.unescape(page)
    assert list(finding.to_frame().columns) == list(finding.rows()[0])
    assert len(finding.to_frame()) > 0
    tree, tensors = pack(finding)
    assert unpack(type(finding), json.loads(json.dumps(tree, allow_nan=False)), tensors) == finding
    if any(isinstance(block, Chart | Heatmap | Metric) for block in finding.blocks()):
        assert isinstance(finding.plot(), Figure)


@each_method
def test_it_says_something(answer: Answer):
    finding = answer.run.finding
    assert finding.verdict in Verdict
    assert finding.headline.endswith(".")
    assert any(character.isdigit() for character in finding.headline)  # the number that carries it
    assert finding.blocks()


@each_method
def test_it_takes_a_text_only_model_or_refuses_it(entry: Entry, tmp_path_factory: pytest.TempPathFactory):
    """Where a part is absent the method answers, or says in one line what is missing."""
    folder = tmp_path_factory.mktemp("text-only")
    chosen = load(entry.name)
    values = samples(chosen)
    subjects = [flag for flag, value in values.items() if isinstance(value, Subject)]
    values |= dict.fromkeys(subjects, text_only())
    values |= {flag: PROMPTS for flag, value in values.items() if isinstance(value, Examples)}
    before = state(values)
    try:
        run(chosen, values, chosen.small, root=folder, name="text-only")
    except BadInput:  # which is one line by construction
        assert list(folder.iterdir()) == []
    assert state(values) == before


def text_only(opened: list[Subject] = []) -> Subject:  # noqa: B006 - opened once in a session
    if not opened:
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            opened.append(open_subject(tiny.checkpoint("llama", Path(folder) / "llama")))
    return opened[0]


def test_other_code_is_another_source():
    assert len({load(entry.name).source for entry in ENTRIES}) == len(ENTRIES)
    assert len(code()) == 64


def test_too_little_memory_for_one_example_is_told_with_its_cure():
    from dataclasses import make_dataclass

    def full(options=None) -> Finding:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")

    full.__doc__ = "Full?\n\nPaper: none.\n\n1. Fill.\n\nHow to read it: so. When it misleads: never."
    full.__annotations__["options"] = make_dataclass("Options", [("batch_size", int, 1)], frozen=True)
    with pytest.raises(BadInput, match=r"full: .*one example at a time.*2\.00 GiB.*--max-pixels"):
        method()(full)()


@each_method
def test_help_says_what_every_option_means(entry: Entry, capsys: pytest.CaptureFixture[str]):
    chosen = load(entry.name)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", entry.name, "--help"])
    assert not ended.value.code
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for one in chosen.inputs:
        assert f"--{one.flag} " in text
    for option, meaning in documented(chosen).items():
        assert f"--{option.replace('_', '-')}" in text
        assert " ".join(meaning.split()) in text


def documented(chosen: Method[Finding]) -> dict[str, str]:
    """Every option with the docstring below it."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(chosen.options))).body
    assert isinstance(definition, ast.ClassDef)
    found = {
        line.target.id: below.value.value
        for line, below in pairwise(definition.body)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }  # fmt: skip
    assert set(found) == {field.name for field in fields(chosen.options)}
    return found


def unfounded(method: Method[Finding]) -> tuple[Verdict, ...]:
    """Wrong verdicts on an untrained model: an alarm, and a pass from an adviser, which judges nothing."""
    return (Verdict.PASS,) if method.role == "adviser" else (Verdict.CONCERN, Verdict.FAIL)


@each_method
def test_an_untrained_model_raises_no_alarm(answer: Answer):
    """The negative control, on the untrained samples; `make test-slow` repeats it on other seeds."""
    assert answer.run.finding.verdict not in unfounded(answer.asked)


@pytest.mark.slow  # every method, three to five times
@each_method
def test_at_most_one_of_several_untrained_models_raises_an_alarm(entry: Entry):
    chosen = load(entry.name)
    verdicts: list[Verdict] = []
    values = samples(chosen)
    fresh = [flag for flag, value in values.items() if isinstance(value, Subject)]
    for seed in range(1, 6 if chosen.role == "judge" else 4):
        processor = untrained.processor()
        values |= {flag: open_subject(untrained.model(seed + 10 * number), processor=processor)
                   for number, flag in enumerate(fresh)}  # fmt: skip
        require(chosen, values)
        verdicts.append(chosen.answer(values, chosen.small).verdict)
    assert sum(verdict in unfounded(chosen) for verdict in verdicts) <= 1, verdicts


def test_there_is_something_to_hold_to_the_contract():
    assert ENTRIES
    assert kinds.KINDS
