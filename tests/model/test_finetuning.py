"""Is what is taught kept whole where a model is stored in half precision, and behind an adapter?"""

import copy

import peft
import pytest
import torch

from glasshouse.model.finetuning import Tuning, finetune
from glasshouse.model.identity import weight_hash
from glasshouse.model.projector_differences import projector_differences, projector_weights
from glasshouse.model.subject import Subject
from glasshouse.model.training import Schedule
from glasshouse.organisms import shelf
from glasshouse.values.deltas import Dense, Patch
from glasshouse.values.errors import BadInput

SHORT = Tuning(schedule=Schedule(4, 1.5e-4, warmup=2, decay=0.0), batch=8)


def flat(patch: Patch) -> torch.Tensor:
    return torch.cat([delta.values.flatten() for delta in patch.deltas.values() if isinstance(delta, Dense)])


@pytest.fixture(scope="module")
def in_full_precision(base: Subject) -> torch.Tensor:
    return flat(finetune(base, shelf.downstream(16, 3), SHORT))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_small_steps_are_not_lost_in_half_precision(base: Subject, in_full_precision: torch.Tensor, kind: torch.dtype):
    half = Subject(copy.deepcopy(base.model).to(kind), base.processor, "half")
    before = weight_hash(half.model)
    update = flat(finetune(half, shelf.downstream(16, 3), SHORT))
    assert weight_hash(half.model) == before
    assert bool(update.isfinite().all())
    assert float((update != 0).float().mean()) > 0.95
    assert float(torch.nn.functional.cosine_similarity(update, in_full_precision, dim=0)) > 0.9


def adapted(base: Subject, *targets: str) -> Subject:
    config = peft.LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False)
    return Subject(peft.get_peft_model(copy.deepcopy(base.model), config), base.processor, "adapted")


def test_a_projector_is_found_behind_an_adapter_on_the_language_model(base: Subject):
    subject = adapted(base, "q_proj")
    patch = finetune(subject, shelf.downstream(16, 3), SHORT)
    assert set(patch.deltas) == {
        f"{path}.{end}" for path in base.anatomy.projector.linears for end in ("weight", "bias")
    }
    assert [difference.name for difference in projector_differences(subject, base)] == [*projector_weights(base)]


def test_an_adapter_on_the_projector_is_refused_with_the_fix(base: Subject):
    with pytest.raises(BadInput, match="merge"):
        projector_weights(adapted(base, "linear_1", "linear_2"))
