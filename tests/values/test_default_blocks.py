"""What a finding's field types and docstrings give: rows per unit, and blocks without picture code."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import pytest
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from glasshouse.values.blocks import Chart, Gallery, Heatmap, Metric, Note, Picture, Series, Table
from glasshouse.values.codec import pack, unpack
from glasshouse.values.declared import declared
from glasshouse.values.default_blocks import field_blocks
from glasshouse.values.findings import Finding, Interval, Keys, NoPicture, Null, Percent, Rows, Verdict

RATE, CHANCE = Interval(0.75, 0.5, 0.875, 8), Interval(0.25, 0.0, 0.5, 8)
PICTURE = Picture(torch.zeros(2, 3, 3, dtype=torch.uint8), "cat")


@dataclass(frozen=True)
class Size:
    width: int
    """Pixels from left to right."""
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class State:
    """One state of the model."""

    asr: Interval
    """Attack success rate. On triggered examples."""
    accuracy: Annotated[Interval | None, NoPicture] = None
    size: Size = Size(4)
    log_probability: float = -1.0


@dataclass(frozen=True)
class Part:
    score: Interval
    """Score of the part. With its interval."""


class Base(Finding):
    @property
    def headline(self) -> str:
        return "8 of 8."

    @property
    def verdict(self) -> Verdict:
        return Verdict.DESCRIBED


@dataclass(frozen=True, eq=False)
class Everything(Base):
    asr: Annotated[Interval, Null("control")] = RATE
    """Attack success rate. What follows is the explanation."""
    control: Interval = CHANCE
    arms: Annotated[Mapping[str, Interval], Null("benign"), Keys("arm")] = field(
        default_factory=lambda: {"trained": RATE, "benign": CHANCE}
    )
    doses: Annotated[Mapping[str, Mapping[float, Interval]], Keys("direction", "dose"), Null("random")] = field(
        default_factory=lambda: {"shared": {0.5: CHANCE, 1.0: RATE}, "random": {0.5: CHANCE}}
    )
    """Dose against success."""
    losses: Annotated[Mapping[int, float], Keys("step")] = field(default_factory=lambda: {1: 2.0, 5: 1.0})
    layers: Annotated[tuple[Interval, ...], Keys("layer")] = (RATE, CHANCE)
    grid: Float[Tensor, "rows columns"] = field(default_factory=lambda: torch.eye(2))
    images: tuple[Picture, ...] = (PICTURE,)
    part: Part | None = Part(CHANCE)
    states: Annotated[Mapping[str, Mapping[int, State]], Rows("intervention", "rank")] = field(
        default_factory=lambda: {"removed": {2: State(RATE, RATE), 4: State(CHANCE)}, "added": {2: State(CHANCE)}}
    )
    """States that were measured."""
    secret: Annotated[Interval, NoPicture] = RATE
    count: int = 3
    """How many examples there are."""
    warnings: tuple[str, ...] = ("Mind this.",)

    @property
    def notes(self) -> tuple[str, ...]:
        return ("So it is.",)


@dataclass(frozen=True, eq=False)
class Plain(Base):
    rate: Interval = RATE
    name: str = ""


def test_each_type_of_field_has_its_block_in_the_order_of_fields():
    warning, metric, arms, doses, losses, layers, grid, images, part, states, table, note, figures = (
        Everything().blocks()
    )
    assert warning == Note("Mind this.", "warning")
    assert metric == Metric("Attack success rate", RATE, CHANCE)
    assert arms == Chart.intervals("Arms", {"trained": RATE, "benign": CHANCE}, nulls=("benign",), y="arms")
    shared, random = Series.of("shared", {0.5: CHANCE, 1.0: RATE}), Series.of("random", {0.5: CHANCE}, "null")
    assert doses == Chart("Dose against success", (shared, random), "dose", "doses")
    assert losses == Chart("Losses", (Series("losses", (1.0, 5.0), (2.0, 1.0)),), "step", "losses")
    assert layers == Chart("Layers", (Series.of("layers", {0: RATE, 1: CHANCE}),), "layer", "layers")
    assert isinstance(grid, Heatmap)
    assert (grid.x, grid.y, grid.rows) == ("columns", "rows", ("0", "1"))
    assert images == Gallery("Images", (PICTURE,))
    assert part == Metric("Score of the part", CHANCE)
    lines = (Series.of("removed", {2: RATE, 4: CHANCE}), Series.of("added", {2: CHANCE}))
    assert states == Chart("Attack success rate by intervention and rank", lines, "rank", "asr")
    assert table == Table(
        "States that were measured",
        ("intervention", "rank", "asr", "accuracy", "size width", "log probability"),
        (
            ("removed", 2, RATE, RATE, 4, -1.0),
            ("removed", 4, CHANCE, None, 4, -1.0),
            ("added", 2, CHANCE, None, 4, -1.0),
        ),
        {"asr": "Attack success rate. On triggered examples."},
    )
    assert note == Note("So it is.")
    assert figures == Table("Other figures", ("figure", "value"), (("How many examples there are", 3),))


def test_rows_are_one_flat_record_per_unit():
    finding = Everything()
    first = {
        "intervention": "removed", "rank": 2, "asr": 0.75, "asr_low": 0.5, "asr_high": 0.875,
        "accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.875, "size_width": 4, "log_probability": -1.0,
    }  # fmt: skip
    second = {**first, "rank": 4, "asr": 0.25, "asr_low": 0.0, "asr_high": 0.5}
    assert finding.rows()[:2] == [first, second | dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"))]
    assert finding.unit == "intervention and rank"
    assert list(finding.to_frame().columns) == list(first)


def test_a_finding_without_rows_is_a_single_unit():
    assert Plain().rows() == [{"rate": 0.75, "rate_low": 0.5, "rate_high": 0.875, "name": ""}]
    assert Plain().unit == "finding"


def test_declarations_do_not_disturb_packing():
    finding = replace(Everything(), count=4)
    assert unpack(Finding, *pack(finding)) == finding
    assert finding != Everything()


def test_what_is_empty_is_not_shown():
    empty = replace(
        Everything(), arms={}, doses={}, losses={}, layers=(), images=(), part=None, states={}, warnings=(),
        grid=torch.zeros(0, 2),
    )  # fmt: skip
    assert [type(block) for block in empty.blocks()] == [Metric, Note, Table]
    assert empty.rows() == []


def test_one_field_alone_can_be_shown():
    (block,) = field_blocks(Everything(), "arms")
    assert block.title == "Arms"


def test_a_column_of_a_row_is_drawn_beside_its_null():
    @dataclass(frozen=True)
    class Layer:
        agreement: Annotated[Interval, Null("other_prompt")]
        other_prompt: Interval

    @dataclass(frozen=True, eq=False)
    class Layers(Base):
        layers: Annotated[tuple[Layer, ...], Rows("layer")]

    chart, _ = Layers((Layer(RATE, CHANCE),)).blocks()
    effect, null = Series.of("agreement", {0: RATE}), Series.of("other prompt", {0: CHANCE}, "null")
    assert chart == Chart("Agreement by layer", (effect, null), "layer", "agreement")


def test_three_levels_of_keys_are_one_chart_per_outermost_key():
    @dataclass(frozen=True, eq=False)
    class Energies(Base):
        energy: Annotated[
            Mapping[str, Mapping[str, Mapping[int, float]]],
            Keys("matrix", "update", "directions", y="fraction of the energy"), Null("random"),
        ]  # fmt: skip

    first, second = Energies({"in": {"own": {1: 0.5}, "random": {1: 0.25}}, "out": {"own": {1: 0.75}}}).blocks()
    lines = (Series("own", (1.0,), (0.5,)), Series("random", (1.0,), (0.25,), role="null"))
    assert first == Chart("Energy: in", lines, "directions", "fraction of the energy")
    assert isinstance(second, Chart)
    assert second.title == "Energy: out"


def test_large_tensors_and_pixels_are_no_heatmap():
    @dataclass(frozen=True, eq=False)
    class Tensors(Base):
        weights: Float[Tensor, "out in"]
        pixels: UInt8[Tensor, "height width 3"]

    assert Tensors(torch.zeros(2, 1000), torch.zeros(2, 2, 3, dtype=torch.uint8)).blocks() == []


def test_docstrings_of_base_classes_count_and_those_below_methods_do_not():
    @dataclass(frozen=True)
    class Longer(State):
        more: int = 0

    explanations = {each.name: each.explanation for each in declared(Longer)}
    assert explanations["asr"] == "Attack success rate. On triggered examples."
    assert explanations["more"] == ""


def test_keys_must_be_named():
    @dataclass(frozen=True, eq=False)
    class Nameless(Base):
        states: Annotated[Mapping[str, Mapping[int, State]], Rows("intervention")]

    with pytest.raises(TypeError, match=r"states: name the keys of this field"):
        Nameless({"removed": {2: State(RATE)}}).rows()


@dataclass(frozen=True)
class Shared:
    mass: Annotated[float, Percent]


@dataclass(frozen=True, eq=False)
class Fractions(Base):
    """Every place where a fraction may stand."""

    share: Annotated[float, Percent] = 0.984
    energy: Annotated[Mapping[int, float], Keys("directions"), Percent] = field(default_factory=lambda: {1: 0.25})
    rates: Annotated[Mapping[str, Interval], Keys("arm")] = field(default_factory=lambda: {"a": Interval.rate(1, 4)})
    means: Annotated[Mapping[str, Interval], Keys("arm")] = field(default_factory=lambda: {"a": CHANCE})
    parts: Annotated[Mapping[str, Shared], Keys("part")] = field(default_factory=lambda: {"a": Shared(0.5)})
    grid: Annotated[Float[Tensor, "a b"], Percent] = field(default_factory=lambda: torch.zeros(2, 2))


def test_a_fraction_is_a_percentage_in_every_block():
    energy, rates, means, parts, grid, others = Fractions().blocks()
    drawn = [block for block in (energy, rates, means, grid) if isinstance(block, Chart | Heatmap)]
    assert [block.percent for block in drawn] == [True, True, False, True]
    assert isinstance(parts, Table)
    assert parts.rows == (("a", "50%"),)
    assert isinstance(others, Table)
    assert others.rows == (("Share", "98%"),)
