"""Deltas: each equals its dense matrix, is rounded once, and refuses what does not fit by the weight's name."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.numerics.randomness import seeded
from glasshouse.values.codec import pack, unpack
from glasshouse.values.deltas import Dense, LowRank, Patch, Rows, Sparse, Whole
from glasshouse.values.errors import BadInput

thorough = settings(max_examples=100, deadline=None, derandomize=True, database=None)
WEIGHT = torch.randn(3, 4, generator=seeded(0))
KINDS = [
    Dense(torch.ones(3, 4)),
    Whole(torch.ones(3, 4)),
    LowRank(torch.ones(3, 2), torch.ones(2, 4)),
    Sparse(torch.tensor([0, 11, 11]), torch.ones(3)),
    Rows(torch.tensor([2, 0]), torch.ones(2, 4)),
    Rows(torch.tensor([3]), torch.ones(1, 3), axis=1),
]
each = pytest.mark.parametrize("delta", KINDS, ids=lambda delta: type(delta).__name__)


@st.composite
def cases(draw):
    """A delta and the matrix it adds, both of whole numbers, so that sums in float32 are exact."""
    height, width, count = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(0, 6))
    generator = seeded(draw(st.integers(0, 10**6)))

    def whole(*shape):
        return torch.randint(-8, 9, shape, generator=generator).float()

    dense = torch.zeros(height, width)
    match draw(st.sampled_from(["dense", "low rank", "sparse", "rows", "columns"])):
        case "dense":
            dense = whole(height, width)
            delta = Dense(dense)
        case "low rank":
            left, right = whole(height, count), whole(count, width)
            delta, dense = LowRank(left, right), left @ right
        case "sparse":
            delta = Sparse(torch.randint(height * width, (count,), generator=generator), whole(count))
            for place, value in zip(delta.places.tolist(), delta.values.tolist(), strict=True):
                dense[place // width, place % width] += value
        case "rows":
            delta = Rows(torch.randint(height, (count,), generator=generator), whole(count, width))
            for place, row in zip(delta.places.tolist(), delta.values, strict=True):
                dense[place] += row
        case _:
            delta = Rows(torch.randint(width, (count,), generator=generator), whole(count, height), axis=1)
            for place, column in zip(delta.places.tolist(), delta.values, strict=True):
                dense[:, place] += column
    return delta, dense, whole(height, width)


@given(cases())
@thorough
def test_every_delta_equals_its_dense_matrix(case):
    delta, dense, weight = case
    before = weight.clone()
    delta.check("weight", weight)
    assert torch.equal(delta.onto(weight), weight + dense)
    assert torch.equal(weight, before)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_new_weight_is_a_new_tensor_of_the_same_kind(delta, dtype):
    weight = WEIGHT.to(dtype)
    new = delta.onto(weight)
    assert (new.dtype, new.shape) == (weight.dtype, weight.shape)
    new.zero_()
    assert torch.equal(weight, WEIGHT.to(dtype))


def test_whole_is_exact_to_the_bit():
    bits = torch.tensor([[-(2**31), 1], [2**23 - 1, 0x7F7FFFFF]], dtype=torch.int32)  # -0, denormals, the largest
    values = bits.view(torch.float32)
    whole = Whole(values.clone())
    whole.check("weight", values)
    new = whole.onto(torch.full((2, 2), 7.0))
    assert torch.equal(new.view(torch.int32), bits)
    new.zero_()
    assert torch.equal(whole.values.view(torch.int32), bits)


# In bfloat16 1 + 2**-8 is a tie and rounds down to 1; a little more rounds up, unless the little is lost on the way.
@pytest.mark.parametrize(
    "delta",
    [
        Dense(torch.full((1, 1), 2**-8 + 2**-16)),
        LowRank(torch.tensor([[2**-8, 2**-16]]), torch.ones(2, 1)),
        Sparse(torch.tensor([0, 0]), torch.tensor([2**-8, 2**-16])),
        Rows(torch.tensor([0, 0]), torch.tensor([[2**-8], [2**-16]])),
        Rows(torch.tensor([0, 0]), torch.tensor([[2**-8], [2**-16]]), axis=1),
    ],
    ids=lambda delta: type(delta).__name__,
)
def test_a_coarse_weight_is_rounded_once(delta):
    assert delta.onto(torch.ones(1, 1, dtype=torch.bfloat16)).item() == 1 + 2**-7


@pytest.mark.parametrize(
    ("delta", "told"),
    [
        (Dense(torch.ones(4, 3)), r"is for shape \(4, 3\), the weight has \(3, 4\)"),
        (Dense(torch.ones(4)), r"is for shape \(4,\), the weight has \(3, 4\)"),
        (Whole(torch.ones(1, 4)), r"is for shape \(1, 4\), the weight has \(3, 4\)"),
        (LowRank(torch.ones(4, 2), torch.ones(2, 4)), r"is for shape \(4, 4\), the weight has \(3, 4\)"),
        (Sparse(torch.tensor([12]), torch.ones(1)), r"does not fit a weight of \(3, 4\): places must lie in 0-11"),
        (Sparse(torch.tensor([-1]), torch.ones(1)), r"does not fit .*: places must lie in 0-11"),
        (Rows(torch.tensor([3]), torch.ones(1, 4)), r"does not fit .*: rows must lie in 0-2"),
        (Rows(torch.tensor([4]), torch.ones(1, 3), axis=1), r"does not fit .*: rows must lie in 0-3"),
        (Rows(torch.tensor([0]), torch.ones(1, 3)), r"is for shape \(3, 3\), the weight has \(3, 4\)"),
        (Rows(torch.tensor([0]), torch.ones(1, 4), axis=1), r"is for shape \(4, 4\), the weight has \(3, 4\)"),
    ],
)
def test_misfits_are_refused_by_the_weights_name(delta, told):
    with pytest.raises(BadInput, match=f"^patch of model.layers.3.weight: {told}"):
        delta.check("model.layers.3.weight", WEIGHT)


@pytest.mark.parametrize("delta", [Rows(torch.tensor([0]), torch.ones(1, 4), axis=axis) for axis in (0, 1)])
def test_rows_of_a_vector_are_refused(delta):
    with pytest.raises(BadInput, match=r"^patch of bias: .*\(3,\)"):
        delta.check("bias", torch.ones(3))


@each
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(delta, value):
    field = "right" if isinstance(delta, LowRank) else "values"
    spoilt = type(delta)(**{**vars(delta), field: torch.full_like(getattr(delta, field), value)})
    with pytest.raises(BadInput, match=f"^patch of lm_head: {field} holds NaN or infinity; a patch must be finite$"):
        spoilt.check("lm_head", WEIGHT)


class TestPatch:
    @each
    def test_comes_back_from_disk_equal(self, delta):
        patch = Patch({"b.weight": delta, "a.weight": Dense(torch.zeros(2))})
        back = unpack(Patch, *pack(patch))
        assert back == patch
        assert hash(back) == hash(patch)

    def test_order_of_names_does_not_matter(self):
        one, two = ("one", Dense(torch.ones(2))), ("two", Dense(torch.zeros(2)))
        assert Patch(dict([one, two])) == Patch(dict([two, one]))
        assert Patch(dict([one, two])).digest() == Patch(dict([two, one])).digest()

    @pytest.mark.parametrize(
        "other",
        [
            Patch.dense("v", torch.zeros(2, 2)),
            Patch({"w": Whole(torch.zeros(2, 2))}),
            Patch.dense("w", torch.tensor([[0.0, 0.0], [0.0, -0.0]])),
            Patch.low_rank("w", torch.zeros(2, 1), torch.zeros(1, 2)),
            Patch({}),
        ],
    )
    def test_anything_else_makes_another_patch(self, other):
        patch = Patch.dense("w", torch.zeros(2, 2))
        assert other != patch
        assert other.digest() != patch.digest()
