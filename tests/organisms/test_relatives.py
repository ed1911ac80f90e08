"""Do relatives keep or change the function as documented, and leave the original model unchanged?"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.model.identity import weight_hash
from glasshouse.model.opening import open_subject
from glasshouse.model.patches import patched
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited, record
from glasshouse.numerics.randomness import seeded
from glasshouse.organisms.architectures import BUILDS, build
from glasshouse.organisms.relatives import (
    RELATIONS,
    FineTuned,
    Merged,
    Permuted,
    Pruned,
    Quantised,
    Relation,
    Rescaled,
    Rotated,
    Stranger,
    Thinned,
    relation,
)
from glasshouse.values.changes import Plan, Zero
from glasshouse.values.codec import pack, unpack
from glasshouse.values.deltas import Patch
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site

SAME = 1e-4
"""Of the largest logit."""
PRESERVING = (Permuted(1), Rotated(1), Rescaled(1))
CHANGING = (Pruned(0.3), Thinned(0.25, 1), Quantised(8), Quantised(4), Stranger(1), Stranger(1, matched=True))
EVERY = (*PRESERVING, *CHANGING, FineTuned(3, 1e-3, 0), Merged(0.5))


@dataclass(frozen=True)
class Family:
    """One subject, what it is asked, and what it says."""

    subject: Subject
    examples: Examples
    logits: Tensor


def grown(architecture: str, seed: int) -> Subject:
    """Weights three times as large as drawn, so that every block matters; gains and biases that are not 1 and 0."""
    model = build(architecture, seed)  # pyright: ignore[reportArgumentType]
    roughen(model, seed)
    subject = open_subject(model, processor=BUILDS[architecture].processor())
    subject.name = f"organism:{architecture}-{seed}"
    return subject


@torch.no_grad()
def roughen(model: nn.Module, seed: int) -> None:
    generator = seeded(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.mul_(3)
        elif name.endswith("weight"):
            weight.copy_(0.5 + torch.rand(weight.shape, generator=generator))
        else:
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))


def question(number: int) -> Example:
    pixels = torch.randint(0, 256, (72, 72, 3), generator=seeded(number), dtype=torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    prompt = ("what colour is the star ?", "where is the red object ?", "what shape is the object ?")[number % 3]
    return Example(prompt, (StoredImage(data=buffer.getvalue()),), answer=("red", "top left", "star")[number % 3])


@torch.no_grad()
def all_logits(subject: Subject, examples: Examples) -> Tensor:
    """The logits at every position."""
    return subject.forward(subject.encode(examples)).logits


def apart(logits: Tensor, relatives: Tensor) -> float:
    return float((logits - relatives).abs().max() / logits.abs().max())


def family_of(architecture: str) -> Family:
    subject = grown(architecture, 0)
    examples = Examples(map(question, range(3)))
    return Family(subject, examples, all_logits(subject, examples))


@pytest.fixture(scope="module", params=["llava", pytest.param("idefics3", marks=pytest.mark.slow)])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    family = family_of(request.param)
    weights = weight_hash(family.subject.model)
    yield family
    assert weight_hash(family.subject.model) == weights
    assert torch.equal(all_logits(family.subject, family.examples), family.logits)


@pytest.fixture(scope="module")
def other(family: Family) -> Subject:
    """A stranger to the family, of the same shape."""
    return grown(family.subject.name.removeprefix("organism:").removesuffix("-0"), 5)


def proved_like(relative: Subject, subject: Subject) -> None:
    assert relative.certificate is not None
    assert not relative.certificate.failures
    assert relative.anatomy == subject.anatomy
    assert relative.prompts.original is subject.prompts.original
    for (name, new), (old_name, old) in zip(
        relative.model.state_dict().items(), subject.model.state_dict().items(), strict=True
    ):
        assert name == old_name
        assert (new.shape, new.dtype, new.is_contiguous()) == (old.shape, old.dtype, True)
        assert new.data_ptr() != old.data_ptr()


def outside_language(subject: Subject) -> dict[str, Tensor]:
    assert subject.anatomy.language is not None
    inside = (subject.anatomy.language.path, subject.anatomy.language.unembedding or "none")
    return {name: weight for name, weight in subject.model.named_parameters() if not name.startswith(inside)}


@pytest.mark.parametrize("derived", PRESERVING, ids=str)
def test_the_function_is_preserved(family: Family, derived: Permuted | Rotated | Rescaled):
    before = weight_hash(family.subject.model)
    relative = derived.of(family.subject)
    assert derived.preserves
    assert apart(family.logits, all_logits(relative, family.examples)) < SAME
    assert relative.name == f"{family.subject.name}~{derived}"
    proved_like(relative, family.subject)
    assert weight_hash(relative.model) != before
    assert weight_hash(family.subject.model) == before


def test_the_function_is_preserved_behind_another_projector():
    family = family_of("idefics3")
    assert apart(family.logits, all_logits(Rotated(1).of(family.subject), family.examples)) < SAME


@pytest.mark.parametrize("derived", PRESERVING, ids=str)
def test_every_piece_of_a_preserving_patch_is_needed(family: Family, derived: Permuted | Rotated | Rescaled):
    """Else the test above could not see it missing."""
    patch = type(derived)(3).patch_for(family.subject)  # of seed 3, whose order of the two groups in layer 2 is another
    deep = [name for name in patch.deltas if "layers." not in name or "layers.2." in name]
    assert len(deep) >= 4
    for name in deep:
        with patched(family.subject, Patch({key: delta for key, delta in patch.deltas.items() if key != name})):
            assert apart(family.logits, all_logits(family.subject, family.examples)) > 10 * SAME, name


@pytest.mark.parametrize("derived", CHANGING, ids=str)
def test_the_function_is_changed(family: Family, derived: Pruned | Thinned | Quantised | Stranger):
    before = weight_hash(family.subject.model)
    relative = derived.of(family.subject)
    assert not derived.preserves
    assert apart(family.logits, all_logits(relative, family.examples)) > 10 * SAME
    assert relative.name == f"{family.subject.name}~{derived}"
    proved_like(relative, family.subject)
    assert weight_hash(family.subject.model) == before
    kept = outside_language(relative)
    same = [torch.equal(weight, kept[name]) for name, weight in outside_language(family.subject).items()]
    assert not any(same) if derived == Stranger(1, matched=True) else all(same) or isinstance(derived, Stranger)


@pytest.mark.parametrize(
    "kind", [Permuted, Rotated, Rescaled, lambda seed: Stranger(seed, matched=True)], ids=lambda kind: kind.__name__
)
def test_a_seed_gives_one_relative_and_another_seed_another(family: Family, kind: Callable[[int], Permuted]):
    patches = [kind(seed).patch_for(family.subject).digest() for seed in (1, 1, 2)]
    assert patches[0] == patches[1] != patches[2]


def test_strangers_by_seed(family: Family):
    state = torch.get_rng_state()
    weights = [weight_hash(Stranger(seed).of(family.subject).model) for seed in (1, 1, 2)]
    assert weights[0] == weights[1] != weights[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_matched_stranger_has_the_moments_and_nothing_else(family: Family):
    for name, delta in Stranger(3, matched=True).patch_for(family.subject).deltas.items():
        own = family.subject.model.get_parameter(name).detach()
        new = delta.onto(own)
        if own.numel() > 10_000:
            torch.testing.assert_close(new.std(), own.std(), rtol=0.05, atol=0)
            assert abs(torch.corrcoef(torch.stack([new.flatten(), own.flatten()]))[0, 1]) < 0.06


def test_pruned_is_the_smallest_of_every_matrix(family: Family):
    deltas = Pruned(0.3).patch_for(family.subject).deltas
    assert len(deltas) == 6 * 7
    for name, delta in deltas.items():
        old = family.subject.model.get_parameter(name).detach()
        new = delta.onto(old)
        gone = new == 0
        assert int(gone.sum()) == round(0.3 * gone.numel())
        assert old[gone].abs().max() <= old[~gone].abs().min()
        assert torch.equal(old[~gone], new[~gone])


def test_thinned_says_what_the_model_says_without_those_units(family: Family):
    assert family.subject.anatomy.language is not None
    patch, plan = Thinned(0.25, 2).patch_for(family.subject), dict[Site, Zero]()
    for layer, block in enumerate(family.subject.anatomy.language.layers):
        written = [
            family.subject.model.get_parameter(f"{path}.weight") for path in (block.attention_writer, block.mlp_writer)
        ]
        attention, mlp = (patch.deltas[f"{path}.weight"] for path in (block.attention_writer, block.mlp_writer))
        heads = (attention.onto(written[0]) == 0).all(0).view(4, -1).all(1).nonzero().flatten().tolist()
        neurons = (mlp.onto(written[1]) == 0).all(0).nonzero().flatten().tolist()
        assert (len(heads), len(neurons)) == (2, 64)
        plan[Site("language", "heads")[layer, heads]] = Zero()
        plan[Site("language", "neurons")[layer, neurons]] = Zero()
    with edited(family.subject, Plan(plan)):
        ablated = all_logits(family.subject, family.examples)
    with patched(family.subject, patch):
        assert apart(ablated, all_logits(family.subject, family.examples)) < SAME


def test_what_is_thinned_does_not_depend_on_order_or_scale(family: Family):
    thinned = Thinned(0.5, 2)
    with patched(family.subject, thinned.patch_for(family.subject)):
        logits = all_logits(family.subject, family.examples)
    for derived in (Permuted(4), Rescaled(4)):
        with (
            patched(family.subject, derived.patch_for(family.subject)),
            patched(family.subject, thinned.patch_for(family.subject)),
        ):
            assert apart(logits, all_logits(family.subject, family.examples)) < SAME


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_has_few_levels(family: Family, bits: Literal[8, 4]):
    name, delta = next(iter(Quantised(bits).patch_for(family.subject).deltas.items()))
    old = family.subject.model.get_parameter(name).detach()
    new = delta.onto(old)
    assert max(len(row.unique()) for row in new) <= 2**bits - 1
    assert ((new - old).abs() <= old.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1) / 2 * (1 + SAME)).all()


def test_rotated_turns_the_stream(family: Family):
    sites = [Site("language", "embeddings"), Site("language", "residual")[3]]
    before = record(family.subject, sites, family.examples)
    with patched(family.subject, Rotated(2).patch_for(family.subject)):
        after = record(family.subject, sites, family.examples)
    for site in sites:
        one, two = before[site], after[site]
        assert apart(one, two) > 0.1
        torch.testing.assert_close(one @ one.T, two @ two.T, rtol=1e-3, atol=1e-3 * float((one @ one.T).abs().max()))


def test_rescaled_stays_within_bounds(family: Family):
    deltas = Rescaled(2).patch_for(family.subject).deltas
    name = next(name for name in deltas if name.endswith("up_proj.weight"))
    old = family.subject.model.get_parameter(name).detach()
    ratio = deltas[name].onto(old) / old
    assert 0.25 * (1 - SAME) <= ratio.min() < 0.4 < 2.5 < ratio.max() <= 4 * (1 + SAME)


def test_relatives_have_relatives(family: Family):
    relative = Rescaled(2).of(Rotated(2).of(family.subject))
    assert relative.name == f"{family.subject.name}~rotated(2)~rescaled(2)"
    assert apart(family.logits, all_logits(relative, family.examples)) < SAME


def test_merged_lies_between(family: Family, other: Subject):
    theirs = dict(other.model.named_parameters())
    for share, parent in ((0.0, dict(family.subject.model.named_parameters())), (1.0, theirs)):
        for name, delta in Merged(share).patch_for(family.subject, other).deltas.items():
            assert torch.equal(delta.onto(theirs[name]), parent[name]), name
    half = Merged(0.5).of(family.subject, other)
    proved_like(half, family.subject)
    kept = outside_language(half)
    assert all(torch.equal(weight, kept[name]) for name, weight in outside_language(family.subject).items())
    assert half.name == f"{family.subject.name}~merged(0.5) with {other.name}"
    assert apart(family.logits, all_logits(half, family.examples)) > 10 * SAME


def test_fine_tuned_has_learned_the_answers_and_only_in_language(family: Family):
    derived = FineTuned(6, 3e-3, seed=0, batch=4)
    relatives = [derived.of(family.subject, family.examples) for _ in range(2)]
    proved_like(relatives[0], family.subject)
    assert relatives[0].score(family.examples).sum() > family.subject.score(family.examples).sum() + 1
    assert weight_hash(relatives[0].model) == weight_hash(relatives[1].model)
    kept = outside_language(relatives[0])
    for name, weight in family.subject.model.named_parameters():
        new = relatives[0].model.get_parameter(name)
        assert torch.equal(new, weight) == (name in kept), name
        assert (new.grad, new.requires_grad, weight.grad) == (None, weight.requires_grad, None)


@pytest.mark.parametrize("derived", [*PRESERVING, Pruned(0.5), Thinned(0.3, 3), Quantised(8)], ids=str)
def test_biases_other_groups_and_no_eyes(derived: Permuted):
    """A decoder on its own, with biases everywhere, three heads to a key, and no processor."""
    config = LlamaConfig(
        vocab_size=40, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
    )  # fmt: skip
    subject = plain(LlamaForCausalLM(config))
    relative = derived.of(subject)
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        before, after = (one.model(input_ids=tokens).logits for one in (subject, relative))
    assert (apart(before, after) < SAME) is derived.preserves


def plain(model: nn.Module) -> Subject:
    roughen(model, 0)
    return open_subject(model)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("derived", EVERY, ids=str)
def test_relations_are_data_and_have_a_text(derived: Relation):
    tree, tensors = pack(derived)
    assert unpack(Relation, json.loads(json.dumps(tree)), tensors) == derived
    assert relation(str(derived)) == derived
    assert RELATIONS[derived.label()] is type(derived)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("cousin(3)", "no such relation; choose from fine-tuned, pruned"),
        ("pruned", "no such relation"),
        ("pruned(a third)", r"write it as pruned\(share\)"),
        ("pruned(0.3,1)", r"write it as pruned\(share\)"),
        ("pruned()", "'share' is missing"),
        ('pruned("much")', "expected float"),
        ("pruned(1)", "below 1"),
        ("pruned(NaN)", "below 1"),
        ("thinned(1.0,0)", "fraction of neurons"),
        ("thinned(0.1,-1)", "number of heads is at least 0"),
        ("merged(1.5)", "between 0 and 1"),
        ("quantised(5)", "expected 8 or 4"),
        ("fine-tuned(0,0.1,0)", "must be above 0"),
        ("fine-tuned(1,0.1,0,0)", "at least 1 example"),
    ],
)
def test_what_is_no_relation_is_refused(text: str, fix: str):
    with pytest.raises(BadInput, match=fix):
        relation(text)


def test_other_layouts_are_refused_by_what_they_lack():
    subject = plain(GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, n_positions=32)))
    for derived in (Pruned(0.3), Permuted(0), Quantised(8)):
        with pytest.raises(BadInput, match=r"layers of the Llama type; transformer\.h\.0 has no q_proj, .*down_proj"):
            derived.of(subject)


def test_tied_embeddings_cannot_be_rotated():
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    subject = plain(LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=True)))
    with pytest.raises(BadInput, match=r"are one tied weight.*tie_word_embeddings=False"):
        Rotated(0).of(subject)
    assert Permuted(0).of(subject).anatomy == subject.anatomy


def test_a_layer_that_is_not_plain_is_refused():
    model = build("llava", 0)
    model.model.language_model.layers[1].self_attn.k_proj = nn.Identity()
    with pytest.raises(BadInput, match=r"layers\.1\.self_attn\.k_proj is no plain linear layer \(Identity\)"):
        Pruned(0.3).of(open_subject(model))


def test_a_block_that_only_looks_like_it_is_found_out():
    """A norm that subtracts the mean has the right name, and a rotation does not preserve it."""
    model = build("llava", 0)
    model.model.language_model.layers[2].input_layernorm = nn.LayerNorm(128, bias=False)
    roughen(model, 0)
    subject = open_subject(model, processor=BUILDS["llava"].processor())
    with pytest.raises(BadInput, match=r"its logits differ from those of .* not quite of the Llama type$"):
        Rotated(0).of(subject)
    assert Rescaled(0).of(subject).certificate is not None


def test_what_does_not_fit_is_refused(family: Family, seedling: Subject):
    subject, examples = family.subject, family.examples
    with pytest.raises(BadInput, match=r"differ in the shape of .*embed"):
        Merged(0.5).of(subject, seedling)
    with pytest.raises(BadInput, match=r"thinned\(0.0,4\): .* has 4 heads a layer; keep at least 1"):
        Thinned(0.0, 4).of(subject)
    with pytest.raises(BadInput, match="no examples to train on"):
        FineTuned(1, 1e-3, 0).of(subject, Examples([]))
    with pytest.raises(BadInput, match="example mute has no answer"):
        FineTuned(1, 1e-3, 0).of(subject, Examples([*examples, Example("what ?", id="mute")]))
    with edited(subject, Plan({Site("language", "mlp"): Zero()})), pytest.raises(BadInput, match="is active; leave"):
        Pruned(0.3).of(subject)
