"""Drawings are the same each time, leave matplotlib as it was, and can be read without eyes."""

import copy
import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from glasshouse.report.charts import COLOURS, LONGEST_NAME, NULL, figure, svg
from glasshouse.report.tables import numbers_of
from glasshouse.report.words import alternative, cell, picture_name
from glasshouse.values.blocks import Chart, Heatmap, Metric, Note, Series
from glasshouse.values.intervals import Interval
from hostile import SOME
from sample_findings import INTERVAL, drawn_blocks

DRAWN = {**drawn_blocks("one", "two"), "metric": Metric("number", INTERVAL, null=INTERVAL)}
NAN = math.nan
each = pytest.mark.parametrize("block", DRAWN.values(), ids=DRAWN)


@each
def test_a_drawing_is_the_same_each_time(block):
    assert svg(block) == svg(block)


@each
def test_a_drawing_is_one_whole_element_without_a_size_of_its_own(block):
    drawn = svg(block)
    root = ElementTree.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-hidden") == "true"
    assert root.get("viewBox")
    assert root.get("width") is None
    assert "<metadata" not in drawn


@each
def test_what_a_user_has_set_stays_set(block):
    with matplotlib.rc_context({"svg.hashsalt": "mine", "font.size": 7.5}):
        before = copy.copy(matplotlib.rcParams)
        svg(block)
        assert isinstance(figure(block), Figure)
        assert before == matplotlib.rcParams


@pytest.mark.parametrize("texts", SOME, ids=range(len(SOME)))
@pytest.mark.parametrize("kind", drawn_blocks("word"))
def test_every_text_can_be_drawn(kind: str, texts: tuple[str, ...]):
    """Mathematics, other scripts and everything hostile: without an error, and without a warning."""
    drawn = svg(drawn_blocks(*texts)[kind])
    root = ElementTree.fromstring(drawn)
    assert not [element for element in root.iter() if "script" in element.tag]
    assert len(drawn) < 2_000_000


@pytest.mark.parametrize("text", ["$x^2$", r"\$x\$", "$", "$$", r"\frac $a$ b", "a_b^c"])
def test_dollars_are_dollars(text: str):
    for kind in ("heatmap", "points"):
        said = {element.text for element in ElementTree.fromstring(svg(drawn_blocks(text)[kind])).iter()}
        assert text in said


def test_labels_are_cut():
    legend = figure(drawn_blocks("x" * 500, "y")["lines"]).axes[0].get_legend()
    assert legend.get_texts()[0].get_text() == "x" * 39 + "…"
    lines = [element.text or "" for element in ElementTree.fromstring(svg(drawn_blocks("x" * 500)["points"])).iter()]
    assert "x" * (LONGEST_NAME - 1) + "…" in "".join(lines)


NAMES = ("suspect, triggered", "suspect, clean", "base, triggered", "without the shared direction",
         "without the trigger's part", "the trigger's part put on clean images, at its own dose", "x")  # fmt: skip


def test_names_of_intervals_stand_in_full_and_apart():
    """Down the side, each on its own lines, at a width that a phone has."""
    rates = {name: Interval.rate(number, 8) for number, name in enumerate(NAMES)}
    drawing = figure(Chart.intervals("seven", rates, y="success"))
    drawing.draw_without_rendering()
    axes = drawing.axes[0]
    labels = axes.get_yticklabels()
    assert tuple(label.get_text().replace("\n", " ") for label in labels) == NAMES
    boxes = [label.get_window_extent() for label in labels]
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    assert axes.get_window_extent().width > 0.3 * drawing.bbox.width
    assert drawing.get_figwidth() < 5
    assert drawing.get_figheight() > figure(Chart.intervals("one", {"x": INTERVAL})).get_figheight()


@pytest.mark.parametrize("interval", [Interval(0.5, -math.inf, math.inf, 1), Interval.rate(0, 0), INTERVAL])
def test_an_interval_is_always_drawn(interval: Interval):
    """Without bounds it goes from edge to edge; without a value it is there all the same."""
    axes = figure(Chart.intervals("", {"one": interval, "null": INTERVAL}, nulls=("null",))).axes[0]
    (own,), (null,) = (collection.get_segments() for collection in axes.collections)
    left, right = axes.get_xlim()
    assert own[:, 0].tolist() == [max(interval.low, left), min(interval.high, right)]
    assert null[:, 0].tolist() == [0.25, 0.75]
    assert [to_hex(one.get_color()[0]) for one in axes.collections] == [COLOURS[0], NULL]


def test_nulls_are_grey_and_effects_are_not():
    lines = (Series("effect", (0.0, 1.0), (0.0, 1.0)), Series("null", (0.0, 1.0), (1.0, 0.0), role="null"))
    axes = figure(Chart("both", lines)).axes[0]
    assert [line.get_color() for line in axes.get_lines()] == [COLOURS[0], NULL]
    drawn = svg(Metric("number", INTERVAL, null=INTERVAL))
    assert COLOURS[0] in drawn
    assert NULL in drawn


def test_a_band_over_one_point_is_seen():
    one = Chart("one", (Series("null", (1.0,), (0.5,), low=(0.25,), high=(0.75,), role="null"),))
    (bar,) = figure(one).axes[0].collections
    assert [tuple(map(float, point)) for point in bar.get_segments()[0]] == [(1.0, 0.25), (1.0, 0.75)]


def test_every_series_is_named_in_the_legend():
    lines = tuple(Series(name, (0.0, 1.0), (0.0, 1.0)) for name in ("_a token", "other"))
    legend = figure(Chart("both", lines)).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["_a token", "other"]


@pytest.mark.parametrize(
    "block",
    [
        Heatmap("one cell", torch.ones(1, 1), ("r",), ("c",), texts=(("t",),)),
        Heatmap("no numbers", torch.full((2, 2), NAN), ("a", "b"), ("c", "d"), texts=(("", ""), ("", ""))),
        Heatmap("one is none", torch.tensor([[1.0, NAN]]), ("a",), ("c", "d")),
        Heatmap("large", torch.rand(64, 80), tuple(map(str, range(64))), tuple(map(str, range(80)))),
        Chart("one point", (Series("s", (0.0,), (1.0,)),)),
        Chart("no points", (Series("s", (), ()),)),
        Chart("not a number", (Series("s", (0.0, 1.0), (NAN, 1.0), (NAN, 0.0), (NAN, 2.0)),)),
        Chart("infinite", (Series("s", (0.0, 1.0), (math.inf, 1.0)),)),
    ],
    ids=lambda block: block.title,
)
def test_odd_numbers_are_drawn_and_told(block):
    ElementTree.fromstring(svg(block))
    assert block.title in alternative(block)


def test_the_alternative_tells_the_numbers():
    told = alternative(drawn_blocks("one", "two")["points"])
    assert told.startswith("one. one over one.")
    assert "two: 0.5" in told
    assert "(null)" in alternative(drawn_blocks("one", "two")["lines"])
    told = alternative(Heatmap("map", torch.tensor([[1.0, 5.0], [2.0, 3.0]]), ("a", "b"), ("c", "d")))
    assert told == "map. 2 rows by 2 columns, from 1 to 5 at a, d."


def test_a_picture_with_a_table_below_is_called_by_its_title():
    pictures = drawn_blocks("one", "two")
    for kind in ("points", "lines"):
        assert picture_name(pictures[kind]) == "one. The numbers are in the table below."
    assert picture_name(pictures["heatmap"]) == alternative(pictures["heatmap"])


def test_words_are_no_picture():
    with pytest.raises(TypeError, match="Note is no picture"):
        figure(Note("text"))
    assert alternative(Note("text")) == ""


@pytest.mark.parametrize(
    "block",
    [
        Chart("rates", (Series("one", (0.0, 100.0), (0.0, 0.6)),), percent=True),
        Chart.intervals("rates", {"one": Interval.rate(8, 16)}),
        Heatmap("rates", torch.eye(2), ("a", "b"), ("c", "d"), percent=True),
        Metric("rate", Interval.rate(8, 16)),
    ],
    ids=["lines", "intervals", "heat map", "metric"],
)
def test_a_fraction_has_one_scale_on_drawing_alternative_and_table(block):
    texts = [
        element.text or "" for element in ElementTree.fromstring(svg(block)).iter() if element.tag.endswith("text")
    ]
    assert {"50%", "60%"} & set(texts)
    assert not any(re.fullmatch(r"0\.\d+", text) for text in texts)
    assert "%" in alternative(block) or isinstance(block, Metric)
    table = numbers_of(block)
    assert table is None or all("%" in cell(row[1]) for row in table.rows)
