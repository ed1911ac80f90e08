"""What every method promises, whatever it asks: each is run on the tiny subjects it can take."""

import ast
import html as html_module
import inspect
import io
import json
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from itertools import pairwise
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

import tiny
from glasshouse import cli
from glasshouse.data.examples import Example, Examples
from glasshouse.engine.binding import flag
from glasshouse.engine.catalogue import Entry, catalogue
from glasshouse.engine.method import Method, load
from glasshouse.engine.provenance import code
from glasshouse.engine.runs import Run, run
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import changed_copy
from glasshouse.model.proof import hook_count
from glasshouse.model.subject import Subject
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms import seedling as untrained
from glasshouse.report.terminal import show_finding
from glasshouse.values.blocks import Chart, Heatmap, Metric
from glasshouse.values.codec import digest, pack, unpack
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Verdict
from glasshouse.values.surfaces import rendered

ENTRIES = catalogue()
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
PROMPTS = Examples(Example(prompt=f"what is {word} ?", answer=word) for word in ("red", "blue", "a square", "green"))


def supplied(method: Method[..., Finding], subject: Subject, examples: Examples) -> dict[str, Subject | Examples]:
    """What the method must be given; where it compares models, the same one twice, or one that differs a little."""
    given = dict.fromkeys(method.subjects, subject) | dict.fromkeys(method.examples, examples)
    return given | {"base": nudged(subject)} if method.name in SEES_THE_SAME and subject.anatomy.projector else given


SEES_THE_SAME = ("detect",)
"""Methods that look no further where nothing was changed."""


def nudged(subject: Subject) -> Subject:
    """A copy whose projector is a little otherwise."""
    weights = dict(subject.model.named_parameters())
    names = [f"{path}.weight" for path in subject.anatomy.projector.linears]
    noise = {name: Dense(0.01 * torch.randn(weights[name].shape, generator=seeded(0))) for name in names}
    return open_subject(changed_copy(subject, Patch(noise)), processor=subject.processor)


QUICK: dict[str, dict[str, Any]] = {
    "detect": {"steps": 2},
    "implant": {"steps": 3, "behaviour": "refusal:red", "rate": 0.5},
    "purify": {"steps": 2, "ranks": (3,), "kept": (0.5,)},
}
"""Of methods that train: less of it, for the promises are about what comes of it and not how good it is."""


MORE = {"detect": 16}
"""Of methods that refuse to say anything of fewer examples."""


def options(method: Method[..., Finding]) -> Any:
    return method.options(**QUICK.get(method.name, {}))


@dataclass
class Answer:
    """A method's answer on one subject, twice, and what it left of the subject."""

    method: Method[..., Finding]
    run: Run
    again: Finding
    untouched: bool


@pytest.fixture(scope="session")
def answered(
    seedling: Subject, squares: Examples, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Answer]:
    """`answered("lens", "seedling")`: asked once in a session."""
    known: dict[tuple[str, str], Answer] = {}

    def ask(name: str, which: str) -> Answer:
        if (name, which) not in known:
            folder = tmp_path_factory.mktemp("contract")
            subject = seedling if which == "seedling" else open_subject(tiny.checkpoint("llama", folder / "llama"))
            method, examples = load(name), squares if which == "seedling" else PROMPTS
            if name in MORE and which == "seedling":
                examples = untrained.examples(MORE[name])
            given = supplied(method, subject, examples)
            before = weight_hash(subject.model), hook_count(subject), subject.model.training
            made = run(method, given, options(method), root=folder / "runs")
            again = method(**given, options=options(method))
            untouched = (weight_hash(subject.model), hook_count(subject), subject.model.training) == before
            known[name, which] = Answer(method, made, again, untouched)
        return known[name, which]

    return ask


@pytest.fixture(params=["seedling", "text only"])
def answer(entry: Entry, request: pytest.FixtureRequest, answered: Callable[[str, str], Answer]) -> Answer:
    if request.param == "seedling":
        return answered(entry.name, request.param)  # it has every part, so no method may refuse it
    try:
        return answered(entry.name, request.param)
    except BadInput as problem:
        pytest.skip(f"{entry.name} does not take a text-only model: {problem}")


def test_the_lens_takes_a_text_only_model(answered: Callable[[str, str], Answer]):
    assert answered("lens", "text only").untouched


@each
def test_same_seed_same_finding(answer: Answer):
    assert digest(answer.again) == digest(answer.run.finding)


@each
def test_finding_goes_to_disk_and_comes_back(answer: Answer):
    back = Run.read(answer.run.folder)
    assert back.finding == answer.run.finding
    assert (back.finding.headline, back.finding.verdict) == (answer.run.finding.headline, answer.run.finding.verdict)
    assert type(back.finding) is answer.method.finding


@each
def test_weights_and_hooks_are_as_before(answer: Answer):
    assert answer.untouched


@each
def test_every_surface_shows_it(answer: Answer):
    finding = answer.run.finding
    screen = Console(record=True, width=80, markup=False, emoji=False, highlight=False, file=io.StringIO())
    show_finding(screen, finding)
    terminal = screen.export_text()
    first, _, _ = terminal.partition("\n")
    assert first.startswith(str(finding.verdict).upper())
    html = finding._repr_html_()
    page = rendered("page", answer.run)
    for text in (html, page):
        assert f">{finding.verdict}<" in text
    assert answer.method.question in html_module.unescape(page)
    assert list(finding.to_frame().columns) == list(finding.rows()[0])
    assert len(finding.to_frame()) > 0
    tree, tensors = pack(finding)
    assert unpack(type(finding), json.loads(json.dumps(tree, allow_nan=False)), tensors) == finding
    if any(isinstance(block, Chart | Heatmap | Metric) for block in finding.blocks()):
        assert isinstance(finding.plot(), Figure)


@each
def test_it_says_something(answer: Answer):
    finding = answer.run.finding
    assert finding.verdict in Verdict
    assert finding.headline.endswith(".")
    assert any(character.isdigit() for character in finding.headline)  # the number that carries it
    assert finding.blocks()


def test_other_code_is_another_source():
    assert len({load(entry.name).source for entry in ENTRIES}) == len(ENTRIES)
    assert len(code()) == 64


def test_too_little_memory_is_said_with_its_cure(seedling: Subject):
    def asked(name: str) -> None:
        @wraps(load(name).function)
        def full(*args: Any, **kwargs: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")

        replace(load(name), function=full)(seedling, PROMPTS)

    with pytest.raises(BadInput, match=r"lens: .*2\.00 GiB.*a smaller --batch-size, fewer"):
        asked("lens")
    with pytest.raises(BadInput, match=r"implant: .*; give fewer examples"):  # which has no such option
        asked("implant")


@each
def test_its_page_is_complete(entry: Entry):
    page = load(entry.name).page
    for part in (entry.paper, "\n1. ", "How to read it", "misleads"):
        assert part in page


@each
def test_help_says_what_every_option_means(entry: Entry, capsys: pytest.CaptureFixture[str]):
    method = load(entry.name)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", entry.name, "--help"])
    assert not ended.value.code
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in (*method.subjects, *method.examples):
        assert f"--{flag(name)} " in said
    for option, meaning in documented(method).items():
        assert f"--{option.replace('_', '-')}" in said
        assert " ".join(meaning.split()) in said


def documented(method: Method[..., Finding]) -> dict[str, str]:
    """Every option with the docstring below it."""
    body = ast.parse(textwrap.dedent(inspect.getsource(method.options))).body[0].body
    found = {
        line.target.id: below.value.value
        for line, below in pairwise(body)
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr)
    }
    assert set(found) == {field.name for field in fields(method.options)}
    return found


@each
def test_its_negative_control_is_passed_over(entry: Entry):
    """Fresh models that have learned nothing: at most one in five may look as if they had, or raise an alarm."""
    method, examples = load(entry.name), untrained.examples(16)
    processor = untrained.processor()
    verdicts = []
    for seed in range(1, 6):
        subject = open_subject(untrained.model(seed), processor=processor)
        verdicts.append(method(**supplied(method, subject, examples), options=options(method)).verdict)
    wrong = (Verdict.CONCERN, Verdict.FAIL) if method.role == "judge" else (Verdict.PASS,)
    assert sum(verdict in wrong for verdict in verdicts) <= 1, verdicts


def test_there_is_something_to_hold_to_the_contract():
    assert ENTRIES
