"""The type of a parameter says what must be supplied; nothing depends on its name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest

from glasshouse.data.examples import Examples
from glasshouse.data.pairs import Pairs
from glasshouse.engine import kinds as known
from glasshouse.engine.binding import Request, as_tree, bind, command, supply
from glasshouse.engine.catalogue import OTHERS, catalogue
from glasshouse.engine.inputs import Meaning, inputs_of, kinds
from glasshouse.engine.inputs import installed as known_kinds
from glasshouse.engine.kinds import Base, HeldOut
from glasshouse.engine.method import load, method
from glasshouse.engine.opening import Opening
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

SEEDLING = "organism:seedling"


@dataclass(frozen=True)
class Options: ...


def several(
    guest: Subject, host: Base | None = None, shown: Examples | None = None, apart: HeldOut | None = None,
    series: Annotated[Sequence[Subject], "checkpoints in order"] = (), twins: Pairs | None = None,
    options: Options = Options(),
) -> Finding: ...  # fmt: skip


@pytest.fixture
def ledgers(installed: Path) -> ModuleType:
    return import_module("plugin_kind")


def test_flags_come_from_kinds_and_meanings_and_never_from_well_known_names():
    read = {each.parameter: (each.flag, each.kind.name, each.required, each.several) for each in inputs_of(several)}
    assert read == {
        "guest": ("model", "Subject", True, False),
        "host": ("host", "Subject", False, False),
        "shown": ("data", "Examples", False, False),
        "apart": ("apart", "Examples", False, False),
        "series": ("series", "Subject", False, True),
        "twins": ("pairs", "Pairs", False, False),
    }
    host, series = inputs_of(several)[1], inputs_of(several)[4]
    assert host.help.startswith("The model it was fine-tuned from: ")
    assert host.meaning.organism == "base"
    assert series.help.startswith("Checkpoints in order: ")
    assert "several" in series.help


def untyped(subject, options: Options = Options()) -> Finding: ...
def of_no_kind(thing: dict, options: Options = Options()) -> Finding: ...
def twice(one: Subject, two: Subject, options: Options = Options()) -> Finding: ...
def reserved(limit: Annotated[Examples, "a limit"], options: Options = Options()) -> Finding: ...


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (untyped, "'subject' has no type"),
        (of_no_kind, "'thing' is dict, which is no kind of input; kinds are Subject, Examples, Pairs"),
        (twice, "one and two are both --model; say what each means"),
        (reserved, "--limit is a flag of the command itself"),
    ],
)
def test_what_breaks_the_form_is_refused_when_the_method_is_defined(function: Callable, problem: str):
    with pytest.raises(TypeError, match=problem):
        method()(function)


def test_a_kind_of_another_package_is_known_while_it_is_installed(ledgers: ModuleType):
    assert kinds()[ledgers.Ledger] is ledgers.LEDGER
    assert [(each.flag, each.several) for each in load("total").inputs] == [("ledger", False), ("others", True)]


def test_a_kind_that_clashes_is_refused(installed: Path):
    about = next(installed.glob("*.dist-info")) / "entry_points.txt"
    about.write_text("[glasshouse.kinds]\nledger = glasshouse.engine.kinds:KINDS\n")
    with pytest.raises(TypeError, match="expected a Kind instance"):
        kinds()
    (installed / "impostor.py").write_text("from glasshouse.engine.kinds import SubjectKind\nKIND = SubjectKind()\n")
    about.write_text("[glasshouse.kinds]\nledger = impostor:KIND\n")
    known_kinds.cache_clear()
    with pytest.raises(TypeError, match="clashes with a kind that exists"):
        kinds()


# From words to values


def test_an_organism_brings_what_its_attributes_hold(seedling: Subject):
    supplied = supply(inputs_of(several), Request("several", {"model": (SEEDLING,)}, limit=3))
    assert supplied["model"].content == seedling.content
    assert list(supplied) == ["model", "data", "apart"]  # the seedling has no base and holds no attack
    assert len(supplied["data"]) == 3
    assert supplied["data"].source.endswith("(3 of 16)")


def test_values_that_are_open_already_are_kept_and_checked(seedling: Subject):
    supplied = supply(inputs_of(several), Request("several"), {"model": seedling, "series": [seedling, seedling]})
    assert supplied["model"] is seedling
    assert len(supplied["series"]) == 2
    for wrong in ({"model": "a name"}, {"series": seedling}, {"series": [1]}, {"data": [1]}):
        with pytest.raises(BadInput, match=f"{next(iter(wrong))}: .* given, .* expected"):
            supply(inputs_of(several), Request("several"), wrong)


def test_an_adapter_is_compared_with_the_model_it_is_put_on(seedling: Subject, monkeypatch: pytest.MonkeyPatch):
    opened: list[tuple[str, object, object]] = []

    def open_model(name: str, *, revision: object = None, adapter: object = None, **settings: object) -> Subject:
        opened.append((name, revision, adapter))
        return seedling

    monkeypatch.setattr(known, "open_model", open_model)
    monkeypatch.setattr(known.SubjectKind, "base", lambda self, value: "what it was merged into")
    request = Request(
        "several", {"model": ("org/m",), "series": ("org/a", "org/b")}, opening=Opening(adapter="a", revision="v1")
    )
    supplied = supply(inputs_of(several), request)
    assert supplied["host"] == "what it was merged into"  # `host` means the base, whatever it is called
    assert opened == [("org/m", "v1", "a"), ("org/a", None, None), ("org/b", None, None)]


def test_what_is_missing_is_said_with_the_fix():
    with pytest.raises(BadInput, match=r"lens needs the model to examine: --model MODEL \(.*\), for example --mod"):
        bind(load("lens"), Request("lens"))
    with pytest.raises(BadInput, match=r"--limit 0: must be at least 1"):
        bind(load("lens"), Request("lens", {"model": (SEEDLING,)}, limit=0))


def test_a_request_survives_the_file_and_spells_its_command(tmp_path: Path):
    request = Request("several", {"model": ("a b",), "series": ("x", "y")}, {"seed": 2}, Opening(revision="v1"), 5)
    file = tmp_path / "request.json"
    import json

    file.write_text(json.dumps(as_tree(request)))
    assert Request.read(file) == request
    assert command(load("lens"), Request("lens", {"model": ("a b",)}, {"seed": 2}, Opening(revision="v1"), 5)) == (
        "glasshouse run lens --model 'a b' --revision v1 --limit 5 --seed 2"
    )


def test_a_limit_cuts_pairs_together(seedling: Subject):
    pairs = known.PairsKind().sample(0, 6)
    cut = known.PairsKind().limited(pairs, 2)
    assert [(clean.id, triggered.tags["twin"]) for clean, triggered in cut] == [("square-0",) * 2, ("square-1",) * 2]
    assert cut.triggered.source.endswith("(2 of 6)")


@pytest.mark.parametrize("kind", known.KINDS, ids=lambda kind: kind.name)
def test_samples_differ_by_number_and_identify_themselves(kind):
    first, again, second = kind.sample(0, 4), kind.sample(0, 4), kind.sample(1, 4)
    assert kind.identity(first) == kind.identity(again)
    assert kind.identity(first) != kind.identity(second)
    assert kind.label(first)
    assert kind.text(first)


def test_a_meaning_can_be_a_plain_sentence():
    def asked(subject: Annotated[Subject, "the accused"], options: Options = Options()) -> Finding: ...

    (each,) = inputs_of(asked)
    assert (each.flag, each.meaning) == ("subject", Meaning("the accused"))


@pytest.mark.parametrize("name", [entry.name for entry in catalogue() if entry.theme != OTHERS])
def test_every_method_says_what_it_does_with_each_input(name: str):
    inputs = load(name).inputs
    assert [each.flag for each in inputs if not each.use.endswith(".")] == []
    assert len({each.use for each in inputs}) == len(inputs)
    assert all(f". {each.use}" in each.help for each in inputs)


def test_what_is_said_of_no_parameter_is_refused():
    def asked(subject: Subject, options: None = None) -> None: ...

    (model,) = inputs_of(asked, {"subject": "It is read."})
    assert model.help == "The model to examine: a folder, a hub name or organism:NAME. It is read."
    with pytest.raises(TypeError, match="asked: uses tells of 'subjekt', which is no parameter"):
        inputs_of(asked, {"subjekt": "It is read."})
