"""Packing: values come back equal and typed, refusals name the place, and a tree names no class it should not."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Annotated, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from glasshouse.values.codec import ByContent, digest, pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site, language, projector

thorough = settings(max_examples=100, deadline=None, derandomize=True, database=None)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Count(IntEnum):
    ONE = 1
    TWO = 2


@dataclass(frozen=True)
class Shape:
    pass


@dataclass(frozen=True)
class Square(Shape):
    side: float
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Stack(Shape):
    shapes: tuple[Shape, ...]
    note: str | None = None


@dataclass(frozen=True)
class Stranger:
    side: float = 1.0


@dataclass(frozen=True)
class Even:
    number: int

    def __post_init__(self):
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


@dataclass(frozen=True, eq=False)
class Everything(ByContent):
    flag: bool = True
    cell: str | float | int | bool | None = None
    pair: tuple[int, str] = (1, "one")
    many: tuple[float, ...] = ()
    listed: list[int] = field(default_factory=list)
    sequence: Sequence[str] = ()
    by_name: Mapping[str, tuple[Colour, ...]] = field(default_factory=dict)
    by_site: dict[Site, float] = field(default_factory=dict)
    by_number: Mapping[int, str] = field(default_factory=dict)
    by_colour: Mapping[Colour, int] = field(default_factory=dict)
    choice: Literal["a", 1] = "a"
    count: Count = Count.ONE
    site: Site | None = None
    shape: Shape | None = None
    tensor: Tensor | float = 0.0
    matrix: Float[Tensor, "rows columns"] | None = None


def through_json(kind, value):
    """To the text on disk and back. JSON has no NaN, so none may be asked of it."""
    tree, tensors = pack(value)
    return unpack(kind, json.loads(json.dumps(tree, allow_nan=False)), tensors)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"flag": False},
        *({"cell": cell} for cell in ("", "NaN", "inf", "1", 0, 3, -(2**70), 3.0, 0.1, 1e300, True, False, None)),
        {"cell": math.inf},
        {"cell": -math.inf},
        {"pair": (-3, "ü\ud800\n")},
        {"many": (0.0, -0.0, 5e-324, math.inf)},
        {"listed": [1, 2], "sequence": ["a", "b"]},
        {"by_name": {"red": (Colour.RED, Colour.BLUE), "none": ()}},
        {"by_site": {language.heads[12, 3] @ "answer": 1.0, projector.output: math.inf}},
        {"by_number": {3: "three", -1: "minus one"}, "by_colour": {Colour.BLUE: 2}},
        {"choice": 1, "count": Count.TWO},
        {"site": language.neurons[[1, 4], 3:] @ "image"},
        {"shape": Square(2.0, Colour.BLUE)},
        {"shape": Stack((Stack((Square(1.5),), note="inner"), Shape()))},
        {"tensor": 0.5, "matrix": torch.ones(2, 3)},
    ],
    ids=str,
)
def test_comes_back_equal_and_of_the_same_types(fields):
    back = through_json(Everything, Everything(**fields))
    assert back == Everything(**fields)
    for name, value in fields.items():
        if name != "matrix":
            assert getattr(back, name) == value
        assert type(getattr(back, name)) is type(value)


def test_nan_comes_back_as_a_number():
    back = through_json(Everything, Everything(cell=math.nan, many=(math.nan,)))
    assert isinstance(back.cell, float)
    assert math.isnan(back.cell)
    assert math.isnan(back.many[0])


trees = st.recursive(
    st.builds(Square, st.floats(allow_nan=False), st.sampled_from(Colour)) | st.just(Shape()),
    lambda inner: st.builds(Stack, st.lists(inner, max_size=3).map(tuple), st.none() | st.text()),
    max_leaves=8,
)


@given(trees)
@thorough
def test_nested_families_come_back_equal(shape):
    assert through_json(Shape, shape) == shape


TENSORS = {
    "float32": torch.tensor([[0.1, -0.0], [math.inf, math.nan]]),
    "float64": torch.tensor([1 / 3], dtype=torch.float64),
    "bfloat16": torch.tensor([0.1, 3e38], dtype=torch.bfloat16),
    "float8": torch.tensor([0.5, 448.0]).to(torch.float8_e4m3fn),
    "bool": torch.tensor([True, False]),
    "int64": torch.tensor([-(2**63), 2**63 - 1]),
    "uint8": torch.arange(256, dtype=torch.uint8),
    "empty": torch.empty(0, 3),
    "0-d": torch.tensor(2.5),
    "strided": torch.arange(12.0).reshape(3, 4).T[::2],
    "trained": torch.ones(2, requires_grad=True),
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS.keys())
class TestTensors:
    def test_come_back_to_the_bit(self, tensor):
        back = through_json(Everything, Everything(tensor=tensor)).tensor
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        plain = [each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (back, tensor)]
        assert torch.equal(*plain)

    def test_are_packed_on_their_own(self, tensor):
        _, tensors = pack((tensor, tensor))
        assert len({each.untyped_storage().data_ptr() for each in tensors.values()} | {0}) in (1, 3)
        assert not any(each.requires_grad for each in tensors.values())

    def test_every_bit_counts_in_the_digest(self, tensor):
        other = tensor.detach().clone(memory_format=torch.contiguous_format)
        assert digest(other) == digest(tensor)
        if other.numel():
            other.view(-1).view(torch.uint8)[-1] ^= 1
            assert digest(other) != digest(tensor)


class TestDigest:
    @pytest.mark.parametrize(
        ("one", "two"),
        [
            (torch.zeros(2, 3), torch.zeros(3, 2)),
            (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
            (torch.empty(0), torch.empty(0, 3)),
            (Square(1.0), Stranger(1.0)),
            ({"a": 1}, {"b": 1}),
            ((1, 2), (2, 1)),
            ("1", 1),
            (True, 1),
            (None, "None"),
            (math.nan, "nan"),
            (0.1, 0.1 + 2**-55),
        ],
    )
    def test_differs(self, one, two):
        assert digest(one) != digest(two)

    @pytest.mark.parametrize(
        ("one", "two"), [(1, 1.0), (0.0, -0.0), ((1,), [1.0]), ({"a": 1, "b": 2}, {"b": 2.0, "a": 1.0})]
    )
    def test_of_equals_is_equal(self, one, two):
        assert digest(one) == digest(two)

    def test_is_the_same_in_every_version(self):
        """Files are named by it: whoever changes it on purpose changes this line."""
        assert (
            digest((Square(2.0), torch.arange(3), {"x": math.inf}))
            == "622ca3ce77d015c29ebc4082f8ddb6342e53c101e4f9438356a281a990790c55"
        )


@pytest.mark.parametrize("value", [{1, 2}, frozenset("ab"), object(), 1j, Square, iter([1])])
def test_what_cannot_be_packed(value):
    with pytest.raises(TypeError, match="cannot be packed: use dataclasses, tuples, mappings, tensors, numbers"):
        pack({"deep": [value]})


@pytest.mark.parametrize(
    ("kind", "tree", "told"),
    [
        (Square, {"side": 1.0, "colur": "red"}, r"^Square: unknown option 'colur'; the options are side, colour$"),
        (Square, {"colour": "red"}, "^Square: 'side' is missing$"),
        (Square, {"side": "wide"}, "^Square.side: found 'wide', expected float$"),
        (Square, {"side": True}, "^Square.side: found True, expected float$"),
        (Square, {"side": "NaN"}, "^Square.side: found 'NaN', expected float$"),
        (Square, {"side": 1, "colour": "green"}, "^Square.colour: found 'green', expected red, blue$"),
        (Square, [1.0], "expected the fields of Square$"),
        (Square, None, "^Square: found None, expected the fields of Square$"),
        (Stack, {"shapes": [{"is": "Square"}]}, r"^Stack.shapes\[0\]: 'side' is missing$"),
        (Stack, {"shapes": {"0": {}}}, "^Stack.shapes: found .*, expected a list$"),
        (Stack, {"shapes": "Square"}, "^Stack.shapes: found 'Square', expected a list$"),
        (Everything, {"flag": 1}, "^Everything.flag: found 1, expected bool$"),
        (Everything, {"pair": [1]}, r"^Everything.pair: found \[1\], expected 2 items$"),
        (Everything, {"pair": ["1", "one"]}, r"^Everything.pair\[0\]: found '1', expected int$"),
        (Everything, {"listed": [1, 2.5]}, r"^Everything.listed\[1\]: found 2.5, expected int$"),
        (Everything, {"by_name": []}, r"^Everything.by_name: found \[\], expected a mapping$"),
        (Everything, {"by_name": {"x": ["green"]}}, r"^Everything.by_name.x\[0\]: found 'green'"),
        (Everything, {"by_number": {"x": "y"}}, "^Everything.by_number: the key 'x': found 'x', expected int$"),
        (Everything, {"by_site": {"vision": 1.0}}, "'vision' is not a site"),
        (Everything, {"choice": "b"}, "^Everything.choice: found 'b', expected 'a' or 1$"),
        (Everything, {"choice": True}, "^Everything.choice: found True"),
        (Everything, {"site": 3}, "^Everything.site: found 3, expected a site, like"),
        (Everything, {"site": "language.hed"}, "^language.hed: language has"),
        (
            Everything,
            {"tensor": {"tensor": "7"}},
            r"^Everything.tensor: found \{'tensor': '7'\}, expected a stored tensor",
        ),
        (
            Everything,
            {"tensor": {"tensor": ["0"]}},
            "expected a stored tensor; is arrays.safetensors from the same run",
        ),
        (Everything, {"matrix": {"tensor": "0"}}, r"^Everything.matrix: found \[3\], expected .*rows columns"),
        (Everything, {"pair": "x" * 99}, "found 'x{59}…, expected a list$"),
        (Even, {"number": 3}, "^Even: 3 is odd$"),
    ],
)
def test_refusals_name_the_place(kind, tree, told):
    with pytest.raises(BadInput, match=told):
        unpack(kind, tree, {"0": torch.ones(3)})


@pytest.mark.parametrize(
    "named", ["Stranger", "Everything", "object", "Path", "os.system", "", None, 3, ["Square"], {}]
)
@pytest.mark.parametrize("place", ["at the top", "inside"])
def test_a_tree_names_only_the_family(named, place):
    tree = {"is": named, "side": 1.0}
    kind, tree = (Shape, tree) if place == "at the top" else (Everything, {"shape": tree})
    with pytest.raises(BadInput, match="is not a kind of Shape"):
        unpack(kind, tree)


def test_a_subclass_does_not_take_its_base_for_itself():
    with pytest.raises(BadInput, match="'Shape' is not a kind of Square"):
        unpack(Square, {"is": "Shape"})


def test_by_content_tells_classes_apart():
    @dataclass(frozen=True, eq=False)
    class One(ByContent):
        values: Tensor

    @dataclass(frozen=True, eq=False)
    class Two(ByContent):
        values: Tensor

    one, again, other = One(torch.ones(2)), One(torch.ones(2)), One(torch.zeros(2))
    assert one == again
    assert hash(one) == hash(again)
    assert one != other
    assert one != Two(torch.ones(2))
    assert one != "One"


@dataclass(frozen=True)
class Labelled:
    """Metadata in annotations belongs to whoever wrote it, at any depth."""

    side: Annotated[float, "metres"]
    sides: Annotated[Mapping[str, Annotated[int, "counted"] | None], "by name"]
    shape: Annotated[Shape, "any kind"] = Square(1.0)


def test_metadata_of_annotations_is_ignored_and_types_are_still_checked():
    value = Labelled(1.5, {"a": 2, "b": None}, Square(2.0))
    assert unpack(Labelled, *pack(value)) == value
    assert unpack(Annotated[Shape, "any kind"], *pack(Square(3.0))) == Square(3.0)
    assert unpack(tuple[Annotated[int, "counted"], ...], [1, 2]) == (1, 2)
    with pytest.raises(BadInput, match=r"Labelled\.side: found 'wide', expected float"):
        unpack(Labelled, {"side": "wide", "sides": {}})
    with pytest.raises(BadInput, match=r"Labelled\.sides\.a: found 1\.5"):
        unpack(Labelled, {"side": 1.0, "sides": {"a": 1.5}})
