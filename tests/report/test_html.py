"""A page is one file that no text brings to life, that asks nothing of the network, and says where it comes from."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from glasshouse.engine.comparison import Comparison, Pair
from glasshouse.engine.index import Entry
from glasshouse.engine.runs import Run
from glasshouse.report.facts import inputs_of
from glasshouse.report.html import audit_page, comparison_page, fragment, index_page, page
from glasshouse.values import blocks
from glasshouse.values.blocks import Block, Chart, Gallery, Picture, Series, Table
from glasshouse.values.surfaces import rendered
from hostile import SOME, TEXTS, Page, assert_dead, controls
from sample_findings import (
    INTERVAL,
    PIXELS,
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
        audit = audit_with(text, trace=text, judge="broken", witness="refused")  # test_browser draws findings
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
    regions = [dict(attributes) for tag, attributes in Page(html).elements if dict(attributes).get("role") == "region"]
    assert regions == [{"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Colours"}]
    assert re.findall(r'<th scope="row">(.*?)</th>', html) == ["red", "3"]
    assert html.count("<td>") == 6
    assert 'aria-label="table"' in fragment(OneBlock(Table("", ("name",), ())))


def test_one_verdict_has_one_word_and_every_line_its_method():
    audit = audit_with(judge="pass", witness="concern", adviser="described")
    html = audit_page(audit)
    words = ["pass", "concern", "described"]
    assert re.findall(r'<span class="verdict small (\w+)">\1</span>', html) == words * 2
    findings = html.partition("What was found</h2>")[2].partition("</section>")[0]
    assert re.findall(r"<li><strong>(\w+):</strong> (.*?)</li>", findings) == [
        (name, f"the {name} finds half.") for name in ("witness", "judge", "adviser")
    ]
    assert html.count("95 % confidence intervals") == 1
    assert "All available checks ran." in html
    pairs = tuple(Pair(name, run, run, ()) for name, run in audit.runs.items())
    compared = comparison_page(Comparison(audit, audit, pairs))
    assert re.findall(r'<span class="verdict small (\w+)">', compared) == [word for word in words for _ in range(2)]
    assert re.findall(r"<td>(\w+)</td>", fragment(audit)) == words


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
    text = " ".join(Page(rendered("page", finished)).text)
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
