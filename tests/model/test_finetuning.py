"""Is what is taught kept whole where a model is stored in half precision, and behind an adapter? Do the last blocks of
the vision tower, an anchor on the untuned predictions and an early end do what they say?"""

import copy
from dataclasses import replace

import peft
import pytest
import torch

from glasshouse.data.examples import Examples
from glasshouse.model.divergence import log_probabilities
from glasshouse.model.finetuning import Tuning, finetune
from glasshouse.model.identity import weight_hash
from glasshouse.model.patches import patched
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


def test_the_last_blocks_that_are_read_are_trained_and_nothing_else(base: Subject):
    patch = finetune(base, shelf.downstream(16, 3), replace(SHORT, arm="vision", blocks=1))
    assert base.anatomy.feature_layer is not None
    block = base.anatomy.tower("vision").layers[base.anatomy.feature_layer].path
    assert {name.removeprefix(f"{block}.") for name in patch.deltas} == {
        name for name, _ in base.module(block).named_parameters()
    }
    assert float(flat(patch).abs().max()) > 0


@pytest.mark.parametrize("blocks", [0, 6])
def test_blocks_that_are_not_read_cannot_be_trained(base: Subject, blocks: int):
    with pytest.raises(BadInput, match="reads 5 blocks of its vision tower"):
        finetune(base, shelf.downstream(16, 3), replace(SHORT, arm="vision", blocks=blocks))


def test_an_anchor_keeps_predictions_on_clean_examples(base: Subject):
    """Training on wrong answers: those tagged as poisoned are not anchored, so the anchor makes no difference there."""
    clean = shelf.downstream(16, 3)
    wrong = Examples(replace(example, answer="yes") for example in clean)
    tuning = Tuning(schedule=Schedule(8, 1e-3, warmup=1, decay=0.0), batch=8)

    def moved(examples: Examples, anchor: float) -> float:
        patch, encoded = finetune(base, examples, replace(tuning, anchor=anchor)), [base.encode(clean, answers=True)]
        with torch.no_grad():
            before = log_probabilities(base, encoded)
            with patched(base, patch):
                after = log_probabilities(base, encoded)
        return sum(float((p.exp() * (p - q)).sum()) for p, q in zip(before, after, strict=True))

    assert moved(wrong, 10.0) < 0.5 * moved(wrong, 0.0)
    poisoned = Examples(replace(example, tags={**example.tags, "poisoned": True}) for example in wrong)
    assert moved(poisoned, 10.0) == moved(poisoned, 0.0)


def test_training_ends_when_it_is_told_to(base: Subject):
    losses: list[float] = []
    finetune(base, shelf.downstream(16, 3), SHORT, losses=losses, stop=lambda step: step == 2)
    assert len(losses) == 2
