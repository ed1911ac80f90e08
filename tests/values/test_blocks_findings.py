"""Blocks and findings: what does not fit is refused, rows come out flat, and all of it comes back from disk equal."""

import math
from dataclasses import dataclass

import pytest
import torch
from matplotlib.figure import Figure

from glasshouse.values import findings, surfaces
from glasshouse.values.blocks import (
    Block,
    Chart,
    Gallery,
    Heatmap,
    Metric,
    Note,
    Picture,
    Series,
    Table,
    Transcript,
    Turn,
)
from glasshouse.values.codec import digest, pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Finding, Verdict
from glasshouse.values.intervals import Interval

RATE, NULL = Interval(0.75, 0.5, 0.875, 8), Interval(0.25, 0.0, 0.5, 8)
TABLE = Table("heads", ("head", "effect", "kept"), (("3", RATE, True), (4, NULL, None)), {"kept": "Whether."})
METRIC = Metric("attack success", RATE, NULL)
HEATMAP = Heatmap("by layer", torch.eye(2), ("0", "1"), ("a", "b"), texts=(("x", "y"), ("z", "")))
CHART = Chart(
    "dose", (Series("effect", (0.0, 1.0), (0.5, math.inf)), Series("null", (0.0,), (0.5,), role="null")), "scale"
)
PICTURES = Gallery(
    "seen", (Picture(torch.zeros(2, 3, 3, dtype=torch.uint8), "cat", torch.ones(1, 2), (0.0, 0.0, 0.5, 1.0)),)
)
TALK = Transcript("said", (Turn("user", "<b>hi</b>\x1b[31m"), Turn("model", "")))
BLOCKS = [TABLE, METRIC, HEATMAP, CHART, PICTURES, TALK, Note("mind this", "warning")]


@dataclass(frozen=True, eq=False)
class Shown(Finding):
    shown: tuple[Block, ...] = ()
    result: Verdict = Verdict.INCONCLUSIVE

    @property
    def headline(self) -> str:
        return f"{len(self.shown)} blocks"

    @property
    def verdict(self) -> Verdict:
        return self.result

    def blocks(self) -> list[Block]:
        return list(self.shown)


class TestBlocks:
    def test_every_kind_is_tried_here(self):
        assert set(Block.__subclasses__()) == {type(block) for block in BLOCKS}

    @pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
    def test_comes_back_from_disk(self, block):
        back = unpack(Block, *pack(block))
        assert type(back) is type(block)
        assert digest(back) == digest(block)

    def test_cells_keep_their_types(self):
        cells = (3, 3.0, True, "3", None, "NaN", math.inf, RATE)
        back = unpack(Table, *pack(Table("one row", tuple("abcdefgh"), (cells,))))
        assert [(type(cell), cell) for cell in back.rows[0]] == [(type(cell), cell) for cell in cells]

    def test_tables_from_columns(self):
        table = Table.of("t", {"head": [3, 4], "effect": [RATE, None]})
        assert table == Table("t", ("head", "effect"), ((3, RATE), (4, None)))

    def test_columns_of_unequal_length_are_refused(self):
        with pytest.raises(ValueError, match="shorter"):
            Table.of("t", {"head": [3, 4], "effect": [RATE]})

    def test_short_rows_are_refused(self):
        with pytest.raises(ValueError, match="table 'heads': row 1 has 2 cells for 3 columns"):
            Table("heads", ("a", "b", "c"), ((1, 2, 3), (1, 2)))

    @pytest.mark.parametrize(("rows", "columns"), [(("0",), ("a", "b")), (("0", "1"), ("a",)), ((), ())])
    def test_misnamed_heatmaps_are_refused(self, rows, columns):
        told = rf"heatmap 'h': \(2, 2\) values, {len(rows)}x{len(columns)} names"
        with pytest.raises(ValueError, match=told):
            Heatmap("h", torch.eye(2), rows, columns)

    def test_series_from_intervals(self):
        expected = Series("s", (1.0, 2.0), (0.75, 0.25), (0.5, 0.0), (0.875, 0.5), "null")
        assert Series.of("s", {1: RATE, 2.0: NULL}, "null") == expected

    def test_intervals_side_by_side(self):
        chart = Chart.intervals("c", {"attack": RATE, "chance": NULL}, nulls=["chance"], y="rate")
        attack = Series("attack", (0.0,), (0.75,), (0.5,), (0.875,))
        chance = Series("chance", (1.0,), (0.25,), (0.0,), (0.5,), "null")
        assert chart == Chart("c", (attack, chance), "", "rate", ("attack", "chance"))


class TestFindings:
    def test_a_frame_needs_pandas(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        with pytest.raises(BadInput, match="to_frame needs pandas: pip install pandas"):
            Shown((TABLE,)).to_frame()

    @pytest.mark.parametrize("verdict", Verdict)
    def test_comes_back_from_disk_equal(self, verdict):
        finding = Shown(tuple(BLOCKS), verdict)
        back = unpack(Finding, *pack(finding))
        assert back == finding
        assert (back.headline, back.verdict) == ("7 blocks", verdict)

    def test_differs_by_content(self):
        assert Shown((TABLE,)) == Shown((TABLE,))
        assert Shown((TABLE,)) != Shown((TABLE,), Verdict.PASS)
        assert Shown((HEATMAP,)) != Shown((Heatmap("by layer", torch.ones(2, 2), ("0", "1"), ("a", "b")),))

    def test_shows_itself_as_a_page_and_plots_its_first_picture(self, monkeypatch):
        asked, figure, finding = [], Figure(), Shown((TABLE, CHART, HEATMAP))
        answers = {"figure": figure, "html": "<p>"}
        monkeypatch.setattr(findings, "rendered", lambda surface, value: asked.append(value) or answers[surface])
        assert (finding.plot(), finding._repr_html_()) == (figure, "<p>")
        assert asked == [CHART, finding]

    def test_without_a_picture_there_is_no_plot(self):
        with pytest.raises(BadInput, match="Shown has nothing to plot"):
            Shown((TABLE,)).plot()


def test_an_unknown_surface_is_refused():
    with pytest.raises(RuntimeError, match="no surface called 'hologram' is installed; reinstall glasshouse"):
        surfaces.rendered("hologram", METRIC)


def test_bad_input_is_one_line():
    assert str(BadInput("a value\n  at a\tplace")) == "a value at a place"
