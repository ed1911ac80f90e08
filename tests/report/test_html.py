"""A page is one file that no text brings to life, that asks nothing of the network, and says where it comes from."""

import base64
import copy
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import juries
from glasshouse.engine.audit import examine
from glasshouse.engine.binding import Opening, Request
from glasshouse.engine.index import side_by_side
from glasshouse.engine.runs import Run
from glasshouse.report.html import audit_page, comparison_page, fragment, page
from glasshouse.report.words import Told
from glasshouse.values import blocks
from glasshouse.values.blocks import Block, Gallery, Picture, Table
from glasshouse.values.surfaces import rendered
from hostile import SOME, TEXTS, Page, assert_dead, controls
from showing import PIXELS, SURE, Said, drawings, every_kind, words

texts = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
WORDS = tuple(words(""))


def leaves(tree: Any, change: Callable[[str], str], keep: tuple[str, ...] = ("method.name",), place: str = "") -> Any:
    """The tree with every text in it changed."""
    if isinstance(tree, dict):
        return {key: leaves(item, change, keep, f"{place}.{key}".strip(".")) for key, item in tree.items()}
    if isinstance(tree, list):
        return [leaves(item, change, keep, place) for item in tree]
    return change(tree) if isinstance(tree, str) and place not in keep else tree


def shown(finished: Run, text: str, *kinds: str) -> str:
    """The page of a run in which a stranger said this everywhere."""
    facts = leaves(copy.deepcopy(finished.facts), lambda said: text)
    facts["subjects"]["subject"] |= {"revision": text, "adapter": text}
    facts["options"] = {"harmless": 1, "said": text}
    return page(SimpleNamespace(facts=facts, finding=Said(text, kinds)))


@pytest.fixture(scope="module")
def skeleton(finished: Run) -> list:
    return Page(shown(finished, "word", *WORDS)).skeleton


def test_no_kind_of_block_is_forgotten_here():
    kinds = {kind for kind in vars(blocks).values() if isinstance(kind, type) and issubclass(kind, Block)} - {Block}
    assert {type(block) for block in every_kind("word").values()} == kinds


@texts
def test_no_text_comes_alive(finished: Run, skeleton: list, text: str):
    """Elements and attributes are those of a page on which everybody says "word"."""
    html = shown(finished, text, *WORDS)
    seen = assert_dead(html)
    if text:  # without a text some lines are left out
        assert seen.skeleton == skeleton
    assert len(html) < 500_000


@texts
def test_no_control_reaches_the_page_from_a_stranger(finished: Run, text: str):
    """Names of models, what they said, data and commands; the rest of the facts is ours."""
    facts = copy.deepcopy(finished.facts)
    facts["subjects"]["subject"] |= dict.fromkeys(("name", "family", "architecture", "revision", "adapter"), text)
    facts["data"]["examples"]["source"] = facts["command"] = facts["options"]["said"] = text
    html = page(SimpleNamespace(facts=facts, finding=Said(text, WORDS)))
    assert controls(html) <= {"\t"}
    html.encode("utf-8")


@pytest.mark.parametrize("some", SOME, ids=range(len(SOME)))
@pytest.mark.parametrize("kind", drawings("word"))
def test_no_text_comes_alive_in_a_drawing(kind: str, some: tuple[str, ...]):
    """Neither on the drawing, nor in its alternative, nor in the table of its numbers."""

    class Drawn(Said):
        def blocks(self) -> list[Block]:
            return [drawings(*some)[kind]]

    html = fragment(Drawn("word", ()))
    assert_dead(html)
    assert controls(html) <= {"\t"}
    assert len("".join(Page(html).text)) > 100


def test_a_fragment_is_as_dead_as_a_page():
    for text in TEXTS.values():
        assert_dead(fragment(Said(text, WORDS)))
        drawn = SimpleNamespace(lines=lambda text=text: [text])
        assert Page(fragment(drawn)).tags == {"pre"}


def test_what_was_said_can_be_read(finished: Run):
    text = '<b>bold</b> & "quoted" {{7*7}}'
    said = " ".join(Page(shown(finished, text, *WORDS)).text)
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
    rows = (("red", 1.0), (3, 2.0), (None, 3.0), (SURE, 4.0))
    html = fragment(OneBlock(Table("Colours", ("name", "number"), rows)))
    regions = [dict(attributes) for tag, attributes in Page(html).elements if dict(attributes).get("role") == "region"]
    assert regions == [{"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Colours"}]
    assert re.findall(r'<th scope="row">(.*?)</th>', html) == ["red", "3"]
    assert html.count("<td>") == 6
    assert 'aria-label="table"' in fragment(OneBlock(Table("", ("name",), ())))


def test_a_sentence_may_begin_with_a_letter_of_its_own():
    told = Told.of("A question?\n\nHow to read it:  a small rank is enough. When it misleads:\n    i do not know.")
    assert (told.reading, told.misleading) == ("A small rank is enough.", "I do not know.")
    told = Told.of("A question?\n\nHow to read it: high. When it misleads: A small rank is enough.")
    assert told.misleading == "A small rank is enough."


@pytest.mark.usefixtures("jury")
def test_an_adviser_describes_and_every_line_has_its_method(tmp_path: Path):
    juries.says |= {"witness": "concern", "adviser": "fail"}
    request = Request("audit", {"subject": "organism:seedling"}, {}, {}, Opening())
    made = examine(request, root=tmp_path)
    html = audit_page(made)
    badge = r'<span class="verdict small (\w+)" data-verdict="(\w+)">(\w+)</span>'
    adviser, judge, witness = ("described", "fail", "described"), ("pass",) * 3, ("concern",) * 3
    assert re.findall(badge, html) == [judge, witness, adviser] * 2
    found = html.partition("What was found</h2>")[2].partition("</section>")[0]
    assert re.findall(r"<li><strong>(\w+):</strong> (.*?)</li>", found) == [
        (name, f"the {name} says half of it, 50%.") for name in ("witness", "judge", "adviser")
    ]
    assert html.count("95 % intervals") == 1
    assert 'class="verdict small fail"' not in comparison_page(side_by_side(made, made))
    assert "<td>fail</td>" not in fragment(made)


def test_the_page_of_a_finding_is_the_same_each_time(finished: Run):
    first = rendered("page", finished)
    assert first == rendered("page", finished)
    assert first == rendered("page", Run.read(finished.folder))
    assert first == (finished.folder / "report.html").read_text("utf-8")


def test_the_page_says_where_it_comes_from(finished: Run, seedling):
    said = " ".join(Page(rendered("page", finished)).text)
    for text in (
        finished.finding.headline, finished.facts["method"]["question"], finished.facts["command"],
        seedling.identity.weights[:16], finished.facts["data"]["examples"]["digest"][:16],
        f"anatomy proved by {len(seedling.certificate.checks)} checks", "How to read", "misleads", "batch_size = 4",
    ):  # fmt: skip
        assert text in said
    for package, number in finished.facts["versions"].items():
        assert f"{package} {number}" in said


@pytest.mark.parametrize(
    ("proof", "told"),
    [
        (None, "anatomy not proved"),
        ([{"what": "x", "passed": True}, {"what": "y", "passed": False}], "proved by 2 checks, of which 1 failed"),
    ],
)
def test_what_is_not_proved_is_told(finished: Run, proof: Any, told: str):
    facts = {**finished.facts, "proofs": {"subject": proof}}
    assert told in page(SimpleNamespace(facts=facts, finding=finished.finding))


def decoded(picture: Picture) -> torch.Tensor:
    import numpy

    (address,) = Page(fragment(OnePicture("", ("gallery",), picture))).values("src")
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return torch.from_numpy(numpy.array(Image.open(io.BytesIO(data)).convert("RGB")))


class OneBlock(Said):
    def __init__(self, block: Block) -> None:
        super().__init__("", ())
        object.__setattr__(self, "block", block)

    def blocks(self) -> list[Block]:
        return [self.block]


class OnePicture(Said):
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
