"""A function becomes a method only if it keeps to the form, and stays a function."""

import inspect
import pydoc
from dataclasses import dataclass, make_dataclass

import pytest

import glasshouse as gh
from glasshouse.data.examples import Examples
from glasshouse.engine.method import MOST_OPTIONS, as_method, method
from glasshouse.engine.page import Page
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding

PAGE = """What?

    Papers: one (arXiv:2410.02762);
    another.

    1. First,
       and more.
    2. Second.

    How to read it: high is high. When it misleads: at night.

    A word more.
    """
frozen = make_dataclass("frozen", [(f"option_{i}", int, 0) for i in range(MOST_OPTIONS)], frozen=True)
too_many = make_dataclass("too_many", [(f"option_{i}", int, 0) for i in range(MOST_OPTIONS + 1)], frozen=True)
thawed = make_dataclass("thawed", [("option", int, 0)])
clashing = make_dataclass("clashing", [("data", int, 0)], frozen=True)


def made(options: type, page: str = PAGE):
    def asked(subject: Subject, examples: Examples | None = None, options=None) -> Finding: ...

    asked.__doc__ = page
    asked.__annotations__["options"] = options
    return method()(asked)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (thawed, "frozen dataclass"),
        (dict, "frozen dataclass"),
        (too_many, "9 options; at most 8"),
        (clashing, "the option --data has the name of an input"),
    ],
)
def test_options_that_break_the_form_are_refused(options, problem):
    with pytest.raises(TypeError, match=f"asked: .*{problem}"):
        made(options)


def test_the_docstring_is_the_page():
    assert as_method(made(frozen)).page == Page(
        question="What?",
        papers="one (arXiv:2410.02762); another.",
        steps=("First, and more.", "Second."),
        reading="High is high.",
        misleading="At night.",
        rest="A word more.",
    )
    assert as_method(made(frozen)).page.paper == "arXiv:2410.02762"


@pytest.mark.parametrize(
    ("cut", "lacks"),
    [("Papers: ", "'Paper: …'"), ("1. ", "numbered steps"), ("How to read it: ", "'How to read it: …'"),
     ("When it misleads: ", "'When it misleads: …'"), ("?", "a question in its first line")],
)  # fmt: skip
def test_a_page_that_lacks_a_part_is_refused_when_the_method_is_defined(cut: str, lacks: str):
    page = PAGE.replace(cut, "") if cut != "1. " else PAGE.replace("1. ", "").replace("2. ", "")
    with pytest.raises(TypeError, match=lacks):
        made(frozen, page)


def test_calling_a_method_calls_its_function():
    @dataclass(frozen=True)
    class Options: ...

    def echo(options: Options = Options()) -> str:
        return "heard"

    echo.__doc__ = PAGE
    echo.__annotations__ = {"options": Options, "return": str}
    assert method()(echo)() == "heard"  # pyright: ignore[reportArgumentType]


def test_a_function_that_is_half_a_method_is_refused_when_it_is_defined():
    @dataclass(frozen=True)
    class Options: ...

    def bare(options=Options()): ...

    def needy(options: Options) -> Finding: ...

    with pytest.raises(TypeError, match="bare: options has no type"):
        method()(bare)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="needy: options has no default"):
        method()(needy)
    for words in ({"role": "jury"}, {"needs": "luck"}, {"depth": "deep"}):
        with pytest.raises(TypeError, match="is none of"):
            method(**words)(needy)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"subject": "organism:seedling"}, "model: str given, .* expected"),
        ({"examples": Examples(())}, "data: empty"),
        ({"options": frozen()}, r"options: frozen given, glasshouse\.methods\.atlas\.lens\.Options expected"),
    ],
)
def test_a_direct_call_with_the_wrong_values_is_refused(given: dict[str, object], problem: str):
    seedling = gh.organism("seedling")
    with pytest.raises(BadInput, match=problem):
        gh.methods.lens(**({"subject": seedling.subject, "examples": seedling.examples} | given))


def test_a_plain_function_is_no_method():
    with pytest.raises(BadInput, match="made: not a method"):
        as_method(made)  # pyright: ignore[reportArgumentType]


def test_help_and_completion_see_the_real_signature():
    """`help(gh.methods.lens)` shows parameters, types and docstring, as for any function."""
    text = pydoc.render_doc(gh.methods.lens, renderer=pydoc.plaintext)
    assert "lens(subject: " in text
    assert "-> glasshouse.methods.atlas.lens.LensFinding" in text
    assert "Read every layer" in text
    assert list(inspect.signature(gh.methods.recovery).parameters)[:4] == ["subject", "base", "examples", "pairs"]
