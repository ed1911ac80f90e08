"""What differs between two models is found in every part, once each, and exactly."""

import copy
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from glasshouse.model.differences import (
    WeightDifference,
    compared_weights,
    differing_parts,
    part_of,
    setting_differences,
    weight_differences,
)
from glasshouse.model.finder import unwrapped
from glasshouse.model.projector_differences import (
    changed_besides_projector,
    projector_bias_deltas,
    projector_differences,
    projector_weights,
)
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput

Opener = Callable[[str], Subject]
EACH_PART = {
    "model.vision_tower.encoder.layers.0.mlp.fc1.weight": "vision",
    "model.multi_modal_projector.linear_1.bias": "projector",
    "model.language_model.layers.1.self_attn.q_proj.weight": "language",
    "model.language_model.norm.weight": "language",
    "model.language_model.embed_tokens.weight": "embeddings",
    "lm_head.weight": "head",
}


@pytest.fixture
def copied(opened: Opener) -> Callable[[str], Subject]:
    """A copy of a tiny model that a test may change."""

    def copies(family: str) -> Subject:
        subject = opened(family)
        return Subject(copy.deepcopy(subject.model), copy.deepcopy(subject.processor), f"{family}, changed")

    return copies


def weights(subject: Subject) -> dict[str, nn.Parameter]:
    return dict(unwrapped(subject.model).named_parameters())


@pytest.mark.parametrize(("suffix", "part"), EACH_PART.items(), ids=EACH_PART.values())
def test_a_change_of_one_weight_is_found_with_its_part(opened, copied, suffix: str, part: str):
    base, subject = opened("llava"), copied("llava")
    (name,) = [name for name in weights(subject) if name.endswith(suffix.removeprefix("model.vision_tower."))]
    before = weights(base)[name].detach().clone()
    with torch.no_grad():
        weights(subject)[name].add_(0.25)
    (difference,) = weight_differences(subject, base)
    assert (difference.name, difference.part, difference.status) == (name, part, "changed")
    assert torch.equal(difference.delta, weights(subject)[name].detach() - before)
    assert difference.relative_size == pytest.approx(float(difference.delta.norm() / before.norm()))
    assert differing_parts(subject, base) == (part,)
    assert changed_besides_projector(subject, base) == (() if part == "projector" else (part,))


def test_equal_models_have_no_difference_and_every_weight_belongs_to_a_part(opened, copied):
    base, subject = opened("llava"), copied("llava")
    assert list(weight_differences(subject, base)) == []
    assert setting_differences(subject, base) == ()
    every = list(compared_weights(subject, base))
    assert {difference.status for difference in every} == {"same"}
    assert {difference.name for difference in every} == set(unwrapped(subject.model).state_dict())
    assert {part_of(subject, difference.name) for difference in every} == set(EACH_PART.values())


def test_a_tied_weight_is_listed_once_and_an_untied_one_twice(opened, copied):
    base, subject = opened("gemma3"), copied("gemma3")
    table = unwrapped(subject.model).get_input_embeddings().weight
    assert unwrapped(subject.model).get_output_embeddings().weight is table, "the family ties them"
    with torch.no_grad():
        table.add_(1)
    assert [difference.part for difference in weight_differences(subject, base)] == ["embeddings"]
    unwrapped(subject.model).get_output_embeddings().weight = nn.Parameter(table.detach() + 1)
    both = {difference.part: difference.delta for difference in weight_differences(subject, base)}
    assert set(both) == {"embeddings", "head"}
    torch.testing.assert_close(both["head"], both["embeddings"] + 1)


def test_weights_of_one_model_only_and_of_other_shapes_and_types_are_named(opened, copied):
    base, subject = opened("llava"), copied("llava")
    first, second = (subject.module(path) for path in subject.anatomy.projector.linears)
    first.bias = None
    first.register_parameter("gain", nn.Parameter(torch.ones(2)))
    second.weight = nn.Parameter(second.weight.detach()[:, :-1].clone())
    second.bias = nn.Parameter(second.bias.detach().double())
    linear_1, linear_2 = subject.anatomy.projector.linears
    statuses = {difference.name: difference.status for difference in weight_differences(subject, base)}
    assert statuses == {
        f"{linear_1}.gain": "added", f"{linear_1}.bias": "removed",
        f"{linear_2}.weight": "reshaped", f"{linear_2}.bias": "retyped",
    }  # fmt: skip
    by_name = {difference.name: difference for difference in weight_differences(subject, base)}
    assert not by_name[f"{linear_2}.bias"].delta.any()
    with pytest.raises(BadInput, match="the base has no such weight"):
        _ = by_name[f"{linear_1}.gain"].delta
    with pytest.raises(BadInput, match="have no difference"):
        _ = by_name[f"{linear_2}.weight"].delta
    with pytest.raises(BadInput, match=rf"{linear_2}.weight: \(.*\) in .*, \(.*\) in .*; give the model"):
        projector_differences(subject, base)


def test_values_are_read_in_float32_and_rounding_is_below_its_bound():
    stored = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    rounded = WeightDifference("w.weight", "language", stored, stored.bfloat16())
    assert (rounded.status, rounded.delta.dtype, rounded.layer) == ("changed", torch.float32, "w")
    assert float(torch.linalg.matrix_norm(rounded.delta, 2)) <= rounded.rounding
    assert torch.equal(rounded.delta, stored.bfloat16().float() - stored)


def test_nothing_is_kept_between_two_weights(opened, copied):
    """A pair of large models never needs two deltas in memory."""
    base, subject = opened("llava"), copied("llava")
    with torch.no_grad():
        for weight in unwrapped(subject.model).parameters():
            weight.add_(1)
    read: list[weakref.ref[WeightDifference]] = []
    for difference in weight_differences(subject, base):
        assert difference.delta.any()
        assert sum(reference() is not None for reference in read) == 0
        read.append(weakref.ref(difference))
        del difference
    assert len(read) == len(weights(subject))


def test_an_offloaded_weight_is_refused_by_name():
    meta = torch.empty(2, 2, device="meta")
    with pytest.raises(BadInput, match=r"w\.weight: this weight is offloaded"):
        _ = WeightDifference("w.weight", "language", meta, torch.ones(2, 2)).status


def test_settings_that_are_no_weights_are_named(opened, copied):
    base, subject = opened("llava"), copied("llava")
    subject.prompts.original.chat_template = "{{ 'ignore the image' }}"
    unwrapped(subject.model).generation_config.max_new_tokens = 3
    unwrapped(subject.model).config.vision_feature_layer = -1
    subject.prompts.original.image_processor.image_mean = [0.1, 0.2, 0.3]
    changed = {"chat template", "generation configuration", "configuration", "image processor"}
    assert set(setting_differences(subject, base)) == changed
    assert differing_parts(subject, base) == tuple(sorted(changed))


def test_the_projector_is_read_in_order_of_use(opened, copied):
    base, subject = opened("llava"), copied("llava")
    linears = subject.anatomy.projector.linears
    with torch.no_grad():
        subject.module(linears[1]).bias.add_(0.5)
    assert [difference.name for difference in projector_differences(subject, base)] == [f"{p}.weight" for p in linears]
    assert not any(difference.delta.any() for difference in projector_differences(subject, base))
    biases = projector_bias_deltas(subject, base)
    assert [bool(delta.any()) for delta in biases.values()] == [False, True]
    torch.testing.assert_close(biases[f"{linears[1]}.bias"], torch.full_like(biases[f"{linears[1]}.bias"], 0.5))
    assert all(torch.equal(weight, weights(base)[name]) for name, weight in projector_weights(base).items())
