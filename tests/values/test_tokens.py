"""Addresses among tokens: one text form that reads back, through Site, JSON and the codec too; bad ones are refused."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.values.changes import AttentionPattern
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.picks import Pick
from glasshouse.values.sites import Site, language
from glasshouse.values.token_text import parse_tokens
from glasshouse.values.tokens import (
    Chosen,
    Combined,
    Masks,
    Named,
    Phrase,
    Positions,
    Region,
    Tokens,
    phrase,
    positions,
    region,
)

shares = st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(lambda ends: tuple(sorted(ends)))
bounds = st.none() | st.integers(-40, 40)
picks = st.builds(Pick, start=bounds, stop=bounds, step=st.none() | st.integers(1, 3) | st.integers(-3, -1)) | st.lists(
    st.integers(-40, 40), min_size=1, max_size=4
).map(lambda members: Pick(members=tuple(members)))


@st.composite
def chosen(draw: st.DrawFn, example: str) -> Chosen:
    length = draw(st.integers(0, 20))
    return Chosen(example, tuple(i for i in range(length) if draw(st.booleans())), length)


masks = st.lists(st.text(), max_size=3, unique=True).flatmap(
    lambda names: st.tuples(*map(chosen, names)).map(lambda entries: Masks(tuple(entries)))
)
atoms = st.one_of(
    st.sampled_from(["all", "image", "text", "last", "answer"]).map(Named),
    picks.map(Positions),
    st.builds(Region, shares, shares, st.none() | st.integers(1, 9)),
    st.builds(Phrase, st.text(min_size=1), st.none() | st.integers(1, 5) | st.integers(-5, -1)),
    masks,
)
tokens = st.recursive(
    atoms, lambda inner: st.builds(Combined, inner, st.sampled_from(["|", "&", "-"]), inner), max_leaves=5
)


@given(tokens)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_the_text_form_reads_back_everywhere(address: Tokens):
    assert parse_tokens(str(address)) == address
    site = language.heads[2, 1] @ address
    assert Site.parse(str(site)) == site
    assert unpack(Site, json.loads(json.dumps(pack(site)[0]))) == site
    edit = AttentionPattern("cut", keys=address)
    assert unpack(AttentionPattern, json.loads(json.dumps(pack(edit)[0]))).keys == address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (positions(3, 7), "3+7"),
        (positions(slice(0, 4)), "0:4"),
        (phrase("the cat"), "'the cat'"),
        (phrase("it's", -1), '"it\'s"#-1'),
        (region((0, 0.5), (0.25, 1)), "image[0:0.5,0.25:1]"),
        (region(image=2), "image#2"),
        (Named("text") - Named("last") | phrase("a"), "text-last|'a'"),
        (Named("text") - (phrase("a") | Named("last")), "text-('a'|last)"),
        (positions(slice(2, None)) - positions(3), "(2:)-3"),
        (Masks.of_examples({"12": torch.tensor([True, True, False, True])}), "mask('12' 0:2+3 of 4)"),
    ],
)
def test_written_out(address: Tokens, text: str):
    assert str(address) == text
    assert parse_tokens(f" {text} ") == address


@pytest.mark.parametrize("text", ["language.residual[1]@3", "language.residual[1] @ 3", " language.residual[1]@ 3 "])
def test_a_position_may_stand_apart_from_its_sign(text: str):
    assert Site.parse(text) == language.residual[1] @ 3 == language.residual[1] @ positions(3)


def test_a_span_of_another_type_is_refused():
    with pytest.raises(BadInput, match=r"^None names no tokens; give text"):
        _ = language.residual[1] @ None  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("images", r"^no span is called images; spans are all, image, text, last, answer, positions"),
        ("", "^'' names no tokens; write a word"),
        ("'open", "names no tokens"),
        ("text |", "names no tokens"),
        ("(text", "names no tokens"),
        ("''", "^'': an empty phrase selects no token"),
        ("'a'#0", "^'a'#0: occurrences are counted from 1"),
        ("image#0", "^image#0: images are counted from 1"),
        ("image[0:2,0:1]", "^image region 0:2: rows and columns are shares from 0 to 1"),
        ("image[0.5:0.5,0:1]", "^image region 0.5:0.5"),
        ("mask('a' 4 of 3)", "^mask of example a: a position outside its 3 tokens"),
        ("mask('a' 2+1 of 3)", "positions must rise"),
        ("mask('a' 1 of 3, 'a' 2 of 3)", "^mask: example 'a' is named twice"),
        ("::0", "a range with step 0"),
        ("(" * 2000 + "text" + ")" * 2000, "…: more than 66 brackets inside each other; write fewer$"),
        ("|".join(["text"] * 2000), "^an address of more than 64 set operations; name many"),
        ("9" * 5000, "^'9{60}…' names no tokens; write a word"),
        ("image[0:1e999,0:1]", "names no tokens; write a word"),
        ("mask('a' 0:999999999999 of 999999999999)", "^mask of example a: more than 1,048,576 tokens"),
    ],
)
def test_what_is_refused(text: str, told: str):
    with pytest.raises(BadInput, match=told):
        parse_tokens(text)
