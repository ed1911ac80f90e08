"""Text from a stranger is written out, never acted on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.report.inert import BLANK, LONGEST, inert
from hostile import TEXTS, controls

everything = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_nothing_that_steers_is_left(text: str):
    shown = inert(text)
    assert controls(shown) <= {"\t"}
    assert len(shown) <= 10 * LONGEST
    shown.encode("utf-8")


@everything
@given(st.text(st.characters(categories=("C",)), max_size=40))
def test_no_control_of_any_kind_is_left(text: str):
    assert controls(inert(text)) <= {"\t"}
    inert(text).encode("utf-8")


@everything
@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters=BLANK), max_size=LONGEST))
def test_what_can_be_read_stays_as_it_is(text: str):
    assert inert(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b2J", r"\x9b2J"),
        ("a\x00b", r"a\x00b"),
        ("\u202e", r"\x202e"),
        ("a\tb\nc", "a\tb\nc"),
        ("PASS\u2028FAIL\u2029", r"PASS\x2028FAIL\x2029"),
        ("\u3164\u2800\u034f\u115f\uffa0", r"\x3164\x2800\x34f\x115f\xffa0"),
        ("a\ufe00\ufe0f\U000e0100\U000e01ef", r"a\xfe00\xfe0f\xe0100\xe01ef"),
    ],
)
def test_what_is_hidden_is_written_out(text: str, shown: str):
    assert inert(text) == shown


def test_what_is_cut_says_how_long_it_was():
    assert inert("x" * (LONGEST + 1)) == "x" * LONGEST + "… (2,001 characters)"
    assert inert("x" * LONGEST) == "x" * LONGEST
    assert inert(12345, longest=3) == "123… (5 characters)"
