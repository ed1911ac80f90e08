"""Edits: each does exactly what its line says, idle ones nothing; plans are values named by their content."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.numerics.randomness import seeded
from glasshouse.values import changes
from glasshouse.values.changes import (
    Add,
    AttentionPattern,
    Clamp,
    Edit,
    Mask,
    Mean,
    Noise,
    Plan,
    Project,
    Replace,
    Scale,
    Step,
    Zero,
)
from glasshouse.values.codec import pack, unpack
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import language, projector

thorough = settings(max_examples=100, deadline=None, derandomize=True, database=None)
ROWS = torch.tensor([0, 0, 0, 1, 1])
RESIDUAL = torch.randn(5, 6, generator=seeded(0))  # token by feature: units are axis -1
HEADS = torch.randn(5, 3, 2, generator=seeded(1))  # token by head by feature: units are axis -2
VECTOR, PER_HEAD, PER_FEATURE = torch.arange(6.0), torch.tensor([0.0, 1.0, -2.0]), torch.arange(6.0) - 2
FROZEN = [
    Zero(),
    Scale(0.5),
    Scale(PER_HEAD),
    Add(VECTOR, scale=-2.0),
    Project(torch.ones(2, 6), keep=True, strength=0.5),
    Clamp(low=-0.5),
    Replace(0.25),
    Replace(RESIDUAL),
    Mean(),
    Noise(0.3, seed=7),
    AttentionPattern("cut", keys="image"),
    AttentionPattern(torch.tensor([0.25, 0.75]), preserve=False, strength=0.5),
]


def site_for(edit):
    return language.pattern[1] if isinstance(edit, AttentionPattern) else language.residual[1]


@pytest.mark.parametrize(
    ("edit", "values", "units", "expected"),
    [
        (Zero(), RESIDUAL, -1, torch.zeros(5, 6)),
        (Scale(-3.0), RESIDUAL, -1, -3 * RESIDUAL),
        (Scale(PER_FEATURE), RESIDUAL, -1, RESIDUAL * PER_FEATURE[None, :]),
        (Scale(PER_HEAD), HEADS, -2, HEADS * PER_HEAD[None, :, None]),
        (Add(VECTOR), RESIDUAL, -1, RESIDUAL + VECTOR),
        (Add(VECTOR, scale=-2.0), RESIDUAL, -1, RESIDUAL - 2 * VECTOR),
        (Clamp(-0.5, 0.25), RESIDUAL, -1, RESIDUAL.clip(-0.5, 0.25)),
        (Clamp(low=0.0), RESIDUAL, -1, RESIDUAL.relu()),
        (Clamp(high=0.0), RESIDUAL, -1, -(-RESIDUAL).relu()),
        (Replace(0.5), RESIDUAL, -1, torch.full((5, 6), 0.5)),
        (Replace(VECTOR), RESIDUAL, -1, VECTOR.repeat(5, 1)),
        (Replace(HEADS + 1), HEADS, -2, HEADS + 1),
        (Mask(PER_FEATURE), RESIDUAL, -1, RESIDUAL * PER_FEATURE),
        (
            Mask(torch.stack([PER_HEAD, -PER_HEAD])),
            HEADS,
            -2,
            HEADS * torch.stack([PER_HEAD, -PER_HEAD])[ROWS][:, :, None],
        ),
        (Mask(torch.stack([PER_FEATURE, VECTOR])), RESIDUAL, -1, RESIDUAL * torch.stack([PER_FEATURE, VECTOR])[ROWS]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Edit) else "",
)
def test_effect(edit, values, units, expected):
    before = values.clone()
    assert torch.equal(edit.on(values, ROWS, units), expected)
    assert torch.equal(values, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("edit", [edit for edit in FROZEN if not isinstance(edit, Noise | AttentionPattern)])
def test_keeps_type_and_shape(edit, dtype):
    values = RESIDUAL.to(dtype) if edit != Scale(PER_HEAD) else HEADS.to(dtype)
    new = edit.on(values, ROWS, -1 if values.ndim == 2 else -2)
    assert (new.dtype, new.shape) == (dtype, values.shape)


@pytest.mark.parametrize(
    "edit", [Scale(1.0), Scale(1), Add(VECTOR, scale=0.0), Project(torch.ones(1, 6), strength=0.0)]
)
def test_idle_edits_change_no_bit(edit):
    assert edit.idle
    assert torch.equal(edit.on(RESIDUAL, ROWS, -1).view(torch.int32), RESIDUAL.view(torch.int32))


@pytest.mark.parametrize("edit", [Clamp(), Noise(0.0), AttentionPattern(strength=0.0)])
def test_idle_edits_that_are_never_carried_out(edit):
    assert edit.idle


@pytest.mark.parametrize("edit", [*FROZEN, Mask.ones(6), Scale(torch.ones(6))])
def test_others_are_not_idle(edit):
    assert not edit.idle


class TestProject:
    @st.composite
    @staticmethod
    def spans(draw):
        """Directions small and large, often dependent on each other, sometimes zero."""
        count, features = draw(st.integers(1, 4)), draw(st.integers(1, 6))
        whole = draw(st.lists(st.integers(-2, 2), min_size=count * features, max_size=count * features))
        lengths = torch.tensor(draw(st.lists(st.sampled_from([1e-6, 1.0, 1e4]), min_size=count, max_size=count)))
        return torch.tensor(whole, dtype=torch.float32).reshape(count, features) * lengths[:, None]

    @given(spans(), st.integers(0, 99))
    @thorough
    def test_removes_exactly_the_span_or_keeps_it(self, directions, seed):
        values = torch.randn(4, directions.shape[1], generator=seeded(seed))
        exact = torch.nn.functional.normalize(directions.double(), dim=1)
        inside = (values.double() @ torch.linalg.pinv(exact, rtol=1e-6) @ exact).float()
        rows, near = torch.zeros(4, dtype=torch.int64), {"rtol": 0, "atol": 2e-5}
        removed, kept = (Project(directions, keep=keep).on(values, rows, -1) for keep in (False, True))
        torch.testing.assert_close(removed, values - inside, **near)
        torch.testing.assert_close(kept, inside, **near)
        torch.testing.assert_close(Project(directions).on(removed, rows, -1), removed, **near)
        torch.testing.assert_close(Project(directions, keep=True).on(kept, rows, -1), kept, **near)
        half = Project(directions, strength=0.5).on(values, rows, -1)
        torch.testing.assert_close(half, values - inside / 2, **near)

    def test_of_each_head(self):
        removed = Project(torch.tensor([[3.0, 0.0]])).on(HEADS, ROWS, -2)
        torch.testing.assert_close(removed, HEADS * torch.tensor([0.0, 1.0]))


class TestMean:
    @pytest.mark.parametrize("values", [RESIDUAL, HEADS], ids=["residual", "heads"])
    @pytest.mark.parametrize(
        "rows", [ROWS, ROWS * 4 + 2, torch.tensor([1, 0, 1, 0, 0]), torch.zeros(5, dtype=torch.int64)]
    )
    def test_is_taken_within_each_row(self, values, rows):
        expected = torch.stack([values[rows == row].mean(0) for row in rows])
        torch.testing.assert_close(Mean().on(values, rows, -1), expected)

    def test_of_many_coarse_numbers_is_rounded_once(self):
        values = (torch.randn(577, 4, generator=seeded(0)) + 3).bfloat16()
        mean = Mean().on(values, torch.zeros(577, dtype=torch.int64), -1)
        assert torch.equal(mean, values.double().mean(0).bfloat16().expand(577, 4))

    def test_of_no_tokens(self):
        assert Mean().on(RESIDUAL[:0], ROWS[:0], -1).shape == (0, 6)


class TestNoise:
    def test_draws_on_and_starts_afresh(self):
        first, generator = Noise(0.5, seed=3).drawing(), seeded(3)
        for _ in range(2):
            expected = RESIDUAL + 0.5 * torch.randn(5, 6, generator=generator)
            assert torch.equal(first.on(RESIDUAL, ROWS, -1), expected)
        again = Noise(0.5, seed=3).drawing().on(RESIDUAL, ROWS, -1)
        assert torch.equal(again, RESIDUAL + 0.5 * torch.randn(5, 6, generator=seeded(3)))

    def test_is_drawn_only_with_a_generator_kept(self):
        with pytest.raises(AssertionError, match="drawing"):
            Noise(0.5).on(RESIDUAL, ROWS, -1)


class TestMask:
    def test_trains_per_row(self):
        mask = Mask.ones(6, rows=2)
        mask.on(RESIDUAL, ROWS, -1).sum().backward()
        torch.testing.assert_close(mask.values.grad, torch.stack([RESIDUAL[:3].sum(0), RESIDUAL[3:].sum(0)]))

    def test_ones_change_nothing_yet(self):
        assert torch.equal(Mask.ones(3).on(HEADS, ROWS, -2), HEADS)
        assert torch.equal(Mask.ones(3, rows=2).on(HEADS, ROWS, -2), HEADS)

    def test_freezes_into_a_scale_of_its_own(self):
        mask = Mask.ones(6)
        frozen = mask.frozen()
        with torch.no_grad():
            mask.values.mul_(2)
        assert frozen == Scale(torch.ones(6))
        assert not frozen.factor.requires_grad

    def test_per_row_does_not_freeze(self):
        with pytest.raises(BadInput, match="a mask per row cannot be frozen into one Scale; freeze each row's values"):
            Mask.ones(6, rows=2).frozen()

    def test_is_itself_only(self):
        one, two = Mask.ones(6), Mask.ones(6)
        assert one != two
        assert one in {one}
        assert len({one, two, one}) == 2


@pytest.mark.parametrize("factor", [Scale(torch.ones(4)), Mask(torch.ones(4))])
def test_too_many_factors_are_refused(factor):
    with pytest.raises(BadInput, match="4 factors for 3 units"):
        factor.on(HEADS, ROWS, -2)


def test_a_replacement_that_does_not_fit_is_refused():
    with pytest.raises(BadInput, match=r"Replace: the site selects values of \(5, 6\), the replacement is \(4, 6\)"):
        Replace(torch.ones(4, 6)).on(RESIDUAL, ROWS, -1)


class TestPlan:
    def test_every_frozen_edit_is_tried_here(self):
        edits = {kind for _, kind in inspect.getmembers(changes, inspect.isclass) if issubclass(kind, Edit)}
        assert edits - {Edit, Mask} == {type(edit) for edit in FROZEN}

    @pytest.mark.parametrize("edit", FROZEN)
    def test_comes_back_from_disk_equal(self, edit):
        plan = Plan([Step(site_for(edit), edit, rows=(0, 2)), Step(site_for(edit), edit)])
        back = unpack(Plan, *pack(plan))
        assert back == plan
        assert hash(back) == hash(plan)
        assert back.digest() == plan.digest()

    @pytest.mark.parametrize("whole", [Scale(0), Add(VECTOR, scale=2), Clamp(0, 1), Replace(1), Noise(1)])
    def test_whole_numbers_come_back_equal(self, whole):
        assert unpack(Edit, *pack(whole)) == whole

    def test_digest_is_the_same_in_every_version(self):
        """Files are named by it: whoever changes it on purpose changes this line."""
        plan = Plan({language.heads[12, 3] @ "answer": Scale(0.0), projector.output: Add(torch.arange(3.0), scale=2.0)})
        assert plan.digest() == "e69194af7aba48dfa43e6c78267d62c526740c488a30190e93bd4cef0d37aae2"

    @pytest.mark.parametrize("place", range(0, 96, 5))
    def test_one_bit_makes_another_plan(self, place):
        bits = torch.arange(3.0).view(torch.int32).clone()
        bits[place // 32] ^= 1 << (place % 32) if place % 32 < 31 else -(2**31)
        one, two = (Plan({language.residual: Add(vector)}) for vector in (torch.arange(3.0), bits.view(torch.float32)))
        assert one != two
        assert one.digest() != two.digest()

    @pytest.mark.parametrize(
        "other",
        [
            Plan({language.residual[2]: Add(VECTOR)}),
            Plan({language.residual[1] @ "image": Add(VECTOR)}),
            Plan({language.residual[1]: Add(VECTOR, scale=1 + 2**-52)}),
            Plan({language.residual[1]: Add(VECTOR.double())}),
            Plan({language.residual[1]: Replace(VECTOR)}),
            Plan({language.residual[1]: Add(VECTOR)}).for_rows(0),
            Plan({language.residual[1]: Add(VECTOR), language.residual[3]: Zero()}),
            Plan({}),
        ],
    )
    def test_anything_else_makes_another_plan(self, other):
        plan = Plan({language.residual[1]: Add(VECTOR)})
        assert other != plan
        assert other.digest() != plan.digest()

    def test_equal_content_is_one_plan(self):
        mapped = Plan({language.residual[1]: Add(VECTOR)})
        listed = Plan(iter([Step(language.residual[1], Add(VECTOR.clone()))]))
        strided = Plan({language.residual[1]: Add(torch.stack([VECTOR, -VECTOR], 1)[:, 0])})
        assert mapped == listed == strided
        assert len({mapped, listed, strided}) == 1

    def test_order_is_content(self):
        one, two = Plan({language.residual: Zero()}), Plan({language.residual: Scale(2.0)})
        assert list(one | two) == [Step(language.residual, Zero()), Step(language.residual, Scale(2.0))]
        assert one | two != two | one

    def test_arms_give_each_row_its_plan(self):
        one, two = Plan({language.residual: Zero(), language.mlp: Mean()}), Plan({language.residual: Scale(2.0)})
        assert Plan.arms([one, Plan({}), two]) == one.for_rows(0) | two.for_rows(2)
        assert [step.rows for step in one.for_rows(1, 3)] == [(1, 3), (1, 3)]

    @pytest.mark.parametrize(
        ("site", "edit"), [(language.pattern[3], Zero()), (language.heads[3] @ "last", AttentionPattern("cut"))]
    )
    def test_only_patterns_take_attention_patterns(self, site, edit):
        with pytest.raises(
            BadInput, match=f"^{str(site).replace('[', '.').replace(']', '.')}: AttentionPattern goes with"
        ):
            Plan({site: edit})


def test_infinite_bounds_come_back():
    clamp = Clamp(-math.inf, math.inf)
    assert unpack(Edit, *pack(clamp)) == clamp
