"""A function becomes a method only if it keeps to the form."""

from dataclasses import dataclass, make_dataclass

import pytest

from glasshouse.data.examples import Examples
from glasshouse.engine.method import MOST_OPTIONS, method
from glasshouse.model.subject import Subject
from glasshouse.values.findings import Finding

frozen = make_dataclass("frozen", [(f"option_{i}", int, 0) for i in range(MOST_OPTIONS)], frozen=True)
too_many = make_dataclass("too_many", [(f"option_{i}", int, 0) for i in range(MOST_OPTIONS + 1)], frozen=True)
thawed = make_dataclass("thawed", [("option", int, 0)])


def made(options: type):
    def asked(subject: Subject, base: Subject | None = None, *, examples: Examples, options=None) -> Finding: ...

    asked.__annotations__["options"] = options
    return method(question="What?")(asked)


@pytest.mark.parametrize(
    ("options", "problem"),
    [(thawed, "frozen dataclass"), (dict, "frozen dataclass"), (too_many, "9 options; at most 8")],
)
def test_options_that_break_the_form_are_refused(options, problem):
    with pytest.raises(TypeError, match=f"asked: .*{problem}"):
        made(options)


def test_parameter_types_say_what_must_be_supplied():
    asked = made(frozen)
    assert asked.subjects == {"subject": True, "base": False}
    assert asked.examples == {"examples": True}
    assert (asked.options, asked.finding, asked.needs) == (frozen, Finding, "activations")


def test_calling_a_method_calls_its_function():
    @dataclass(frozen=True)
    class Options: ...

    def echo(options: Options = Options()) -> str:
        return "heard"

    echo.__annotations__ = {"options": Options, "return": str}
    assert method(question="What?")(echo)() == "heard"
