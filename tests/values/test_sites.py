"""Addresses: text and Python say the same, picks never shrink silently, refusals name value, place and remedy."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glasshouse.values.errors import BadInput
from glasshouse.values.picks import Pick
from glasshouse.values.sites import IN_BLOCKS, KINDS, WITH_UNITS, Site, language, projector, vision
from glasshouse.values.tokens import ALL, Named, phrase

SPANS = ("all", "image", "text", "last", "answer")
thorough = settings(max_examples=100, deadline=None, derandomize=True, database=None)
numbers = st.integers(-99, 99)
bounds = st.none() | numbers
ranges = st.builds(slice, bounds, bounds, bounds.filter(lambda step: step != 0))
indices = numbers | st.lists(numbers, min_size=1, max_size=4) | ranges
picks = indices.map(Pick.of)


@st.composite
def sites(draw):
    """Every part, kind, pick and span that goes together."""
    part = draw(st.sampled_from(sorted(KINDS)))
    kind = draw(st.sampled_from(KINDS[part]))
    layers = draw(st.none() | picks) if kind in IN_BLOCKS else None
    units = draw(st.none() | picks) if kind in WITH_UNITS else None
    span = Named(draw(st.sampled_from(SPANS))) if part == "language" else ALL
    return Site(part, kind, layers, units, span)


@given(sites())
@thorough
def test_the_text_form_reads_back(site):
    assert Site.parse(str(site)) == site


@given(sites(), st.lists(st.sampled_from(["", " ", "\t", "\n "]), min_size=2, max_size=2))
@thorough
def test_space_around_signs_means_nothing(site, space):
    before, after = space
    assert Site.parse(before + re.sub(r"([][.,:+@])", rf"{before}\1{after}", str(site)) + after) == site


@given(numbers | ranges, numbers | ranges, st.sampled_from(SPANS))
@thorough
def test_python_text_is_the_text_form(layers, units, span):
    def said(index):
        ends = (index.start, index.stop, index.step) if isinstance(index, slice) else (index,)
        return ":".join("" if end is None else str(end) for end in ends)

    text = f"language.heads[{said(layers)}, {said(units)}]"
    assert eval(f"{text} @ {span!r}", {"language": language}) == Site.parse(f"{text}@{span}")


@pytest.mark.parametrize(
    ("site", "text"),
    [
        (language.heads[12, 3] @ "answer", "language.heads[12,3]@answer"),
        (language.residual[3] @ phrase("the @ [cat]"), "language.residual[3]@'the @ [cat]'"),
        (language.residual[3] @ "image[0:.5, 0:1]|last", "language.residual[3]@image[0:0.5,0:1]|last"),
        (language.residual, "language.residual"),
        (language.residual @ "all", "language.residual"),
        (language.residual[:], "language.residual"),
        (language.heads[-1], "language.heads[-1]"),
        (language.heads[:, 3], "language.heads[:,3]"),
        (language.heads[:, :], "language.heads"),
        (language.neurons[[1, 4, 9], :100], "language.neurons[1+4+9,:100]"),
        (language.pattern[(1, 4), ::2] @ "last", "language.pattern[1+4,::2]@last"),
        (vision.residual[5:0:-1], "vision.residual[5:0:-1]"),
        (projector.output, "projector.output"),
    ],
)
def test_written_out(site, text):
    assert str(site) == text
    assert Site.parse(text) == site
    assert hash(Site.parse(text)) == hash(site)


def test_choosing_again_replaces_the_choice_and_keeps_the_span():
    assert (language.heads[1, 2] @ "image")[3] == language.heads[3] @ "image"


@pytest.mark.parametrize("part", [language, vision, projector])
def test_python_names_every_kind_of_a_part(part):
    named = {name: site for name, site in vars(part).items() if isinstance(site, Site)}
    assert named == {kind: Site(part.__name__, kind) for kind in KINDS[part.__name__]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("audio.residual", r"^audio.residual: no part is called audio; parts are language, vision, projector$"),
        ("language.head", r"^language.head: language has embeddings, residual, .*logits$"),
        ("vision.logits", r"^vision.logits: vision has .*features$"),
        ("projector.heads[1]", r"^projector.heads: projector has input, hidden, output$"),
        ("language.logits[3]", r"^language.logits\[3\]: language.logits exists once, so it takes no layer$"),
        (
            "language.mlp[3,4]",
            r"^language.mlp\[3,4\]: mlp has no units; only heads, neurons, pattern, hidden take \[layer,unit\]$",
        ),
        ("language.mlp@images", r"no span is called images; spans are all, image, text, last, answer, positions"),
        (
            "vision.mlp@image",
            r"^vision.mlp@image: spans tell tokens of the prompt apart; in vision every token is of an",
        ),
        ("projector.output@last", r"in projector every token is of an image$"),
        ("", r"^'' is not a site; write part.kind\[layers,units\]@span, like language.heads\[12,3\]@last$"),
        ("language", "'language' is not a site; write"),
        ("language.heads[1", r"'language.heads\[1' is not a site; write"),
        ("language.heads[1,2,3]", r"'language.heads\[1,2,3\]' is not a site; write"),
        ("language.heads@", "'language.heads@' is not a site; write"),
        ("language.res idual", "'language.res idual' is not a site; write"),
        ("language.heads[]", r"^'language.heads\[\]': layers and units are numbers, sums or ranges, like 3, 1\+4\+9"),
        ("language.heads[1,]", "layers and units are numbers, sums or ranges"),
        ("language.heads[one]", "layers and units are numbers, sums or ranges"),
        ("language.heads[1 2]", "layers and units are numbers, sums or ranges"),
        ("language.heads[1.5]", "layers and units are numbers, sums or ranges"),
        ("language.heads[1:2:3:4]", "layers and units are numbers, sums or ranges"),
        ("language.heads[::0]", "^::0: a range with step 0 selects nothing; leave the step out or make it 1 or more"),
    ],
)
def test_texts_that_are_refused(text, told):
    with pytest.raises(BadInput, match=told):
        Site.parse(text)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ([], r"^\[\]: an empty list of numbers; name at least one, for example"),
        ((), r"write \[layers, units\]"),
        ((1, 2, 3), r"^language.heads\[1, 2, 3\]: write \[layers, units\], and several of either as a list, like"),
        ((1, []), "an empty list of numbers"),
        (slice(None, None, 0), "step 0"),
    ],
)
def test_indices_that_are_refused(index, told):
    with pytest.raises(BadInput, match=told):
        language.heads[index]


def test_one_layer_or_none():
    assert language.heads[7, 3].layer == 7
    for several in (language.heads, language.heads[1:2], language.heads[[1, 2]]):
        with pytest.raises(AssertionError, match="does not name one layer"):
            _ = several.layer


class TestAmong:
    @given(st.lists(numbers, min_size=1, max_size=5), st.integers(1, 60))
    @thorough
    def test_members_are_all_there_or_refused(self, members, count):
        missing = [number for number in members if not -count <= number < count]
        if missing:
            with pytest.raises(BadInput, match=rf"^layer {missing[0]}: there are {count} \(0-{count - 1}\)$"):
                Pick.of(members).among(count, "layer")
        else:
            assert Pick.of(members).among(count, "layer") == tuple(range(count)[number] for number in members)

    @given(ranges.map(Pick.of).filter(bool), st.integers(1, 60))
    @thorough
    def test_ranges_mean_what_python_means_and_empty_ones_are_refused(self, pick, count):
        ends = [number for number in (pick.start, pick.stop) if number is not None]
        meant = tuple(range(count)[slice(pick.start, pick.stop, pick.step)])
        if meant and all(-count <= number < count for number in ends):
            assert pick.among(count, "head") == meant
        elif not meant:
            told = rf"^head \S+: (this range is empty, )?there are {count} \(0-{count - 1}\)$"
            with pytest.raises(BadInput, match=told):
                pick.among(count, "head")

    @given(st.integers(0, 40), st.integers(0, 40), st.integers(-3, 3), st.integers(1, 40))
    @thorough
    def test_a_range_between_numbers_is_the_same_however_many_there_are(self, start, stop, step, count):
        assume(step != 0)
        pick = Pick(start=start, stop=stop, step=step)
        try:
            found = pick.among(count, "head")
        except BadInput:
            assert start >= count or stop > count or not range(start, stop, step)
        else:
            assert found == tuple(range(start, stop, step))

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("-1", (3,)),
            ("3+-1+0", (3, 3, 0)),
            ("1:", (1, 2, 3)),
            (":-1", (0, 1, 2)),
            ("::-1", (3, 2, 1, 0)),
            ("0:4", (0, 1, 2, 3)),
        ],
    )
    def test_of_four(self, text, found):
        assert Pick.parse(text).among(4, "layer") == found

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("4", r"layer 4: there are 4 \(0-3\)"),
            ("-5", r"layer -5: there are 4 \(0-3\)"),
            ("1+7", r"layer 7: there are 4 \(0-3\)"),
            ("0:5", r"layer 5: there are 4 \(0-3\)"),
            ("4:", r"layer 4: there are 4 \(0-3\)"),
            ("4::-1", r"layer 4: there are 4 \(0-3\)"),
            ("-5:", r"layer -5: there are 4 \(0-3\)"),
            ("2:2", r"layer 2:2: this range is empty, there are 4 \(0-3\)"),
            ("3:1", r"layer 3:1: this range is empty, there are 4 \(0-3\)"),
        ],
    )
    def test_of_four_refused(self, text, told):
        with pytest.raises(BadInput, match=told):
            Pick.parse(text).among(4, "layer")


def test_a_site_that_is_built_directly_takes_numbers_ranges_and_text():
    assert Site("language", "residual", 1) == language.residual[1]
    assert Site("language", "heads", [1, 4], slice(0, 2), "last") == language.heads[[1, 4], 0:2] @ "last"
    assert str(Site("language", "residual", slice(None))) == "language.residual"


@pytest.mark.parametrize("layers", ["1", 1.5, [1, "2"], {1}])
def test_a_site_refuses_what_names_no_layer(layers):
    with pytest.raises(BadInput, match=r"names no numbers; give a number, a list or a range, such as 3, \[1, 4\]"):
        Site("language", "residual", layers)
