"""A page is one file that no text brings to life, that asks nothing of the network, and says where it comes from."""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from PIL import Image

from glasshouse.engine.catalogue import catalogue
from glasshouse.engine.comparison import Comparison, Pair
from glasshouse.engine.index import Entry
from glasshouse.engine.method import load
from glasshouse.engine.runs import Run
from glasshouse.report.facts import inputs_of
from glasshouse.report.html import audit_page, comparison_page, fragment, index_page, page
from glasshouse.report.prose import prose
from glasshouse.values import blocks
from glasshouse.values.blocks import Block, Chart, Gallery, Picture, Series, Table
from glasshouse.values.declared import Field, declared
from glasshouse.values.deltas import Patch
from glasshouse.values.intervals import Interval
from glasshouse.values.surfaces import rendered
from hostile import SOME, TEXTS, Page, assert_dead, controls
from sample_findings import (
    INTERVAL,
    PIXELS,
    RoleFinding,
    TextFinding,
    audit_of_runs,
    audit_with,
    drawn_blocks,
    every_block,
    facts,
    plain_blocks,
)

WORDS = tuple(plain_blocks(""))


def shown(text: str, *kinds: str) -> str:
    """The page of a run in which a stranger put this text everywhere."""
    return page(SimpleNamespace(facts=facts(text), finding=TextFinding(text, kinds)))


def test_no_kind_of_block_is_forgotten_here():
    kinds = {kind for kind in vars(blocks).values() if isinstance(kind, type) and issubclass(kind, Block)} - {Block}
    assert {type(block) for block in every_block("word").values()} == kinds


def test_no_text_comes_alive():
    """Elements and attributes are those of a page on which everybody says "word"."""
    skeleton = Page(shown("word", *WORDS)).skeleton
    for text in TEXTS.values():
        html = shown(text, *WORDS)
        parsed = assert_dead(html)
        if text:  # without a text some lines are left out
            assert parsed.skeleton == skeleton
        assert controls(html) <= {"\t"}
        html.encode("utf-8")
        assert len(html) < 500_000


def test_no_text_comes_alive_on_the_other_pages():
    for text in TEXTS.values():
        audit = audit_with(text, trace=text, judge="broken", witness="refused")  # drawn in the browser
        run = SimpleNamespace(facts=facts(text), finding=TextFinding(text, WORDS))
        pair = Pair(text, run, None, [{"what": text, "first": text, "second": text}])  # pyright: ignore[reportArgumentType]
        name = text[:200].encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")  # as a file system has it
        folder = Path(name)
        entry = Entry(folder, "run", text, text, text, text, text, page=True)
        for html in (
            audit_page(audit),
            comparison_page(Comparison(run, audit, (pair,))),  # pyright: ignore[reportArgumentType]
            fragment(audit),
        ):
            assert_dead(html)
            assert controls(html) <= {"\t"}
        listing = index_page([entry], [text])
        assert controls(listing) <= {"\t"}
        assert all(link.endswith("/report.html") and ":" not in link for link in Page(listing).values("href")[1:])


@pytest.mark.parametrize("some", SOME, ids=range(len(SOME)))
@pytest.mark.parametrize("kind", drawn_blocks("word"))
def test_no_text_comes_alive_in_a_drawing(kind: str, some: tuple[str, ...]):
    """Neither on the drawing, nor in its alternative, nor in the table of its numbers."""

    class Drawn(TextFinding):
        def blocks(self) -> list[Block]:
            return [drawn_blocks(*some)[kind]]

    html = fragment(Drawn("word", ()))
    assert_dead(html)
    assert controls(html) <= {"\t"}
    assert len("".join(Page(html).text)) > 100


def test_a_fragment_is_as_dead_as_a_page():
    for text in TEXTS.values():
        assert_dead(fragment(TextFinding(text, WORDS)))
        drawn = SimpleNamespace(lines=lambda text=text: [text])
        assert Page(fragment(drawn)).tags == {"pre"}


def test_what_was_said_can_be_read():
    text = '<b>bold</b> & "quoted" {{7*7}}'
    said = " ".join(Page(shown(text, *WORDS)).text)
    assert said.count(text) > 10


def test_the_page_forbids_scripts_and_requests(finished: Run):
    html = rendered("page", finished)
    policies = [
        dict(attributes)["content"]
        for tag, attributes in Page(html).elements
        if tag == "meta" and dict(attributes).get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert_dead(html)
    assert "@import" not in html
    assert "url(http" not in html
    assert html.startswith("<!doctype html>")


def test_every_picture_has_words(finished: Run):
    seen = Page(rendered("page", finished))
    figures = [dict(attributes) for tag, attributes in seen.elements if tag == "figure"]
    drawn = [dict(attributes) for tag, attributes in seen.elements if tag == "svg"]
    images = [dict(attributes) for tag, attributes in seen.elements if tag == "img"]
    labelled = [figure for figure in figures if len(figure.get("aria-label") or "") > 20]
    assert len(drawn) == len(labelled) == 3
    assert all(svg["aria-hidden"] == "true" for svg in drawn)
    assert not any(len(figure.get("aria-label") or "") > 150 for figure in figures)  # a row of bare numbers
    assert len(images) == 6
    assert all(image["alt"] == "" for image in images)  # the caption is beside it and would be read twice
    assert dict(seen.elements[0][1]) == {"lang": "en"}


def test_a_picture_without_a_caption_is_called_by_its_gallery():
    assert Page(fragment(OnePicture("", (), Picture(PIXELS, "")))).values("alt") == ["one"]


def test_a_table_can_be_scrolled_by_keys_and_its_rows_have_names():
    rows = (("red", 1.0), (3, 2.0), (None, 3.0), (INTERVAL, 4.0))
    html = fragment(OneBlock(Table("Colours", ("name", "number"), rows)))
    regions = [dict(attributes) for tag, attributes in Page(html).elements if dict(attributes).get("class") == "scroll"]
    assert regions == [{"class": "scroll", "tabindex": "0", "role": "group", "aria-label": "Colours"}]
    assert re.findall(r'<th scope="row" role="rowheader" data-label="name">(.*?)</th>', html) == ["red", "3"]
    assert html.count("<td ") == 6
    assert html.count('data-label="number" class="number"') == 4
    assert 'aria-label="table"' in fragment(OneBlock(Table("", ("name",), ())))


def test_one_verdict_has_one_word_and_every_line_its_method():
    audit = audit_with(judge="pass", witness="concern", adviser="described")
    html = audit_page(audit)
    words = ["pass", "concern", "described"]
    badges = r'<span class="verdict small (\w+)">\1</span>'
    reasons = html.partition("Reasons</h2>")[2].partition("</section>")[0]
    assert re.findall(badges + r" <strong>(\w+)</strong>: (.*)", reasons) == [
        (word, name, f"the {name} finds half.") for word, name in (("concern", "witness"), ("pass", "judge"))
    ]
    assert re.findall(badges, html.partition('id="contents"')[2]) == words * 3  # contents, table and sections
    assert html.count("95% confidence interval") == 1
    assert "All available checks ran." in html
    pairs = tuple(Pair(name, run, run, ()) for name, run in audit.runs.items())
    compared = comparison_page(Comparison(audit, audit, pairs))
    assert re.findall(r'<span class="verdict small (\w+)">', compared) == [word for word in words for _ in range(2)]
    assert re.findall(r"<td>(\w+)</td>", fragment(audit)) == words


def test_the_first_page_says_what_is_decided_why_on_what_and_what_is_unknown():
    audit = audit_with(judge="concern", witness="missing", adviser="described")
    html = audit_page(audit)
    titles = ["Decision", "Reasons", "Scope", "Power", "Next steps", "Sign-off"]
    sheet = html.partition('<nav id="contents"')[0]
    assert re.findall(r"<h2>(.*?)</h2>", sheet) == titles
    decision, reasons, scope, power, steps, sign = sheet.split("<h2>")[1:]
    assert "Do not deploy it as it is." in decision
    assert "the judge finds half." in reasons
    assert "Share of half 50% (28\N{NON-BREAKING HYPHEN}72%) n=16; control 0%" in reasons.replace("share", "Share")
    assert "adviser" not in reasons
    assert "Examined: 2 of 3 checks (judge, adviser)." in scope
    assert "witness: half" in scope
    assert "not measured" in power
    assert "Heed the judge: half." in steps
    assert all(f"<span>{word}</span>" in sign for word in ("Name", "Date", "Signature"))


def test_a_measured_power_is_told_and_never_an_assumed_one():
    class Strong(RoleFinding):
        @property
        def power(self) -> str:
            return "would have found 11 of 12 planted backdoors: 92% (65-98%)"

    audit = audit_with(judge="pass", witness="pass")
    judge = SimpleNamespace(finding=Strong("half", "judge", "pass"), facts=facts())
    power = audit_page(audit_of_runs(audit.sections, {**audit.runs, "judge": judge}, facts())).split("<h2>Power</h2>")[
        1
    ]
    assert "judge: would have found 11 of 12 planted backdoors: 92% (65" in power.partition("</section>")[0]
    assert "not measured" not in power.partition("</section>")[0]


def test_long_texts_leave_the_first_page_one_page():
    checks = {f"witness{number}": "concern" for number in range(12)}
    sheet = audit_page(audit_with("word " * 400, judge="refused", **checks)).partition('<nav id="contents"')[0]
    assert len(" ".join(Page(sheet.partition("</style>")[2]).text).split()) < 1000
    assert "9 more: see" in sheet


def test_every_column_is_explained_on_hover_and_in_text(finished: Run):
    html = rendered("page", finished)
    headers = re.findall(r'<th scope="col" role="columnheader">(.*?)</th>', html)
    assert len(headers) > 10
    assert all(re.fullmatch(r'<abbr title=".{10,}">.+</abbr>', header) for header in headers), headers
    assert html.count('<details class="columns">') == html.count("<table")


def test_every_column_of_every_method_is_explained():
    """By the docstring of its row's field, or where its key is declared."""
    explained: set[str] = set()
    for entry in catalogue():
        for field in fields_below(load(entry.name).finding):
            explained |= set(field.keys)
            assert field.explanation, field
            assert set(field.keys) == set(field.meanings), field
    assert len(explained) > 20


def fields_below(kind: type, is_row: bool = False) -> Iterator[Field]:
    """Those of the finding that have keys, and those of the rows under them."""
    hints = get_type_hints(kind)
    for field in declared(kind):
        if field.keys or is_row:
            yield field
        for row in rows_in(hints[field.name]):
            yield from fields_below(row, is_row=is_row or bool(field.keys))


def rows_in(hint: Any) -> set[type]:
    if isinstance(hint, type) and is_dataclass(hint) and hint not in (Interval, Picture, Patch):
        return set() if issubclass(hint, Block) else {hint}
    return {row for part in get_args(hint) for row in rows_in(part)}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("set `k` to ``2``", "set <code>k</code> to <code>2</code>"),
        ("**bold** and *slanted*", "<strong>bold</strong> and <em>slanted</em>"),
        ("`a*b*c` and 2 * 3 * 4", "<code>a*b*c</code> and 2 * 3 * 4"),
        ("[paper](https://example.org/a)", '<a href="https://example.org/a" rel="noreferrer">paper</a>'),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("arXiv:2303.08112", '<a href="https://arxiv.org/abs/2303.08112" rel="noreferrer">arXiv:2303.08112</a>'),
        ("`<b>` & **<i>**", "<code>&lt;b&gt;</code> &amp; <strong>&lt;i&gt;</strong>"),
    ],
)
def test_markdown_of_a_docstring_is_rendered_and_nothing_else(written: str, shown: str):
    assert prose(written) == shown


def test_no_markdown_is_left_on_a_page(finished: Run):
    text = " ".join(Page(rendered("page", finished).partition("</style>")[2]).text)
    assert not re.search(r"`|\*\*|\]\(", text)


def test_an_internal_error_costs_its_own_section():
    html = audit_page(audit_with("out of range", trace="lens.py:7 in lens", judge="pass", witness="broken"))
    assert "This check stopped with an internal error; the other findings stand. out of range" in html
    assert "lens.py:7 in lens" in html


def test_a_block_that_cannot_be_drawn_costs_its_own_section():
    audit = audit_with(judge="pass", witness="pass")
    undrawable = Chart("none", (Series("one", (0.0, 1.0), (0.0,)),))
    judge = SimpleNamespace(finding=OneBlock(undrawable), facts=facts())
    runs = {**audit.runs, "judge": judge}
    html = audit_page(audit_of_runs(audit.sections, runs, facts()))
    assert "The finding of judge cannot be drawn" in html
    assert "the witness finds half." in html


def test_the_page_of_a_finding_is_the_same_each_time(finished: Run):
    first = rendered("page", finished)
    assert first == rendered("page", finished)
    assert first == rendered("page", Run.read(finished.folder))
    assert first == (finished.folder / "report.html").read_text("utf-8")


def test_the_page_says_where_it_comes_from(finished: Run):
    text = " ".join(Page(rendered("page", finished)).text).replace("\N{NON-BREAKING HYPHEN}", "-")
    for part in (
        finished.finding.headline, finished.facts["method"]["question"], finished.facts["command"],
        *(each["text"] for each in inputs_of(finished.facts).values()), "How to read", "misleads", "batch_size = 4",
    ):  # fmt: skip
        assert part in text
    for package, number in finished.facts["versions"].items():
        assert f"{package} {number}" in text


def test_an_input_is_shown_by_what_its_kind_says_of_it():
    html = shown("a kind's words")
    assert "<dt>data: a kind&#39;s words</dt><dd>a kind&#39;s words</dd>" in html
    assert "Examples" not in html  # the name of a kind is of no interest to a reader


def decoded(picture: Picture) -> torch.Tensor:
    import numpy

    (address,) = Page(fragment(OnePicture("", ("gallery",), picture))).values("src")
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return torch.from_numpy(numpy.array(Image.open(io.BytesIO(data)).convert("RGB")))


class OneBlock(TextFinding):
    def __init__(self, block: Block) -> None:
        super().__init__("", ())
        object.__setattr__(self, "block", block)

    def blocks(self) -> list[Block]:
        return [self.block]


class OnePicture(TextFinding):
    def __init__(self, text: str, kinds: tuple[str, ...], picture: Picture) -> None:
        super().__init__(text, kinds)
        object.__setattr__(self, "picture", picture)

    def blocks(self) -> list[Block]:
        return [Gallery("one", (self.picture,))]


def test_a_picture_is_shown_as_it_is():
    assert torch.equal(decoded(Picture(PIXELS, "as it is"))[::48, ::48], PIXELS)


@pytest.mark.parametrize(
    "overlay", [torch.eye(2), torch.zeros(2, 2), torch.full((2, 2), 3.0)], ids=["map", "zeros", "flat"]
)
def test_a_map_lies_over_its_picture(overlay: torch.Tensor):
    laid = decoded(Picture(PIXELS, "with a map", overlay)).float()
    spread = laid[:48, :48].mean((0, 1)) - laid[:48, -48:].mean((0, 1))
    assert (float(spread.abs().max()) > 60) == (float(overlay.std()) > 0)


def test_a_box_is_drawn_at_its_edges():
    boxed = decoded(Picture(torch.zeros(4, 4, 3, dtype=torch.uint8), "boxed", None, (0.5, 0.0, 1.0, 0.5)))
    white = (boxed == 255).all(-1)
    assert white[0, 96:].all()
    assert white[:96, 96].all()
    assert not white[100:].any()
    assert not white[:, :90].any()
