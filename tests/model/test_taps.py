"""Do taps read what the model computes and change what they are told, and nothing else, in every family?"""

import pytest
import torch
from torch import Tensor

from glasshouse.data.examples import Examples
from glasshouse.model.identity import weight_hash
from glasshouse.model.proof import hook_count
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited, gather, record
from glasshouse.numerics.accumulators import Gram, Histogram, Moments, TopK
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
    Zero,
)
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import Site, language, projector, vision

from .conftest import READS, SEES, examples_for


def bare(subject: Subject, examples: Examples, *, answers: bool = False) -> Tensor:
    with torch.no_grad():
        return subject.forward(subject.encode(examples, answers=answers)).logits


def changed(subject: Subject, examples: Examples, plan: Plan, *, answers: bool = False) -> Tensor:
    with edited(subject, plan):
        return bare(subject, examples, answers=answers)


@pytest.fixture(params=(*SEES, *READS))
def subject(opened, request: pytest.FixtureRequest) -> Subject:
    return opened(request.param)


@pytest.fixture
def llava(opened) -> Subject:
    return opened("llava")


# Reading ------------------------------------------------------------------------------------------------------------


def test_residuals_are_what_a_hand_written_hook_sees(subject: Subject):
    examples = examples_for(subject, 1)
    seen: list[Tensor] = []
    assert subject.anatomy.language is not None
    handles = [
        subject.module(block.path).register_forward_hook(
            lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        for block in subject.anatomy.language.layers
    ]
    bare(subject, examples)
    for handle in handles:
        handle.remove()
    taken = record(subject, language.residual, examples)
    assert len(taken) == len(seen)
    for residual, theirs in zip(taken.values(), seen, strict=True):
        assert torch.equal(residual, theirs.reshape(residual.shape))


def test_left_padding_changes_no_recorded_token(subject: Subject):
    examples = examples_for(subject, 3)
    together = record(subject, [language.residual[1], language.residual[1] @ "last"], examples, batch_size=3)
    alone = record(subject, [language.residual[1], language.residual[1] @ "last"], examples, batch_size=1)
    for site in together:
        assert torch.equal(together.examples(site), alone.examples(site))
        assert torch.equal(together.positions(site), alone.positions(site))
        torch.testing.assert_close(together[site], alone[site], rtol=1e-4, atol=1e-4)


def test_heads_and_neurons_are_what_the_writers_read(subject: Subject):
    examples = examples_for(subject, 1)
    assert subject.anatomy.language is not None
    block = subject.anatomy.language.layers[-1]
    for kind, path in (("heads", block.attention_writer), ("neurons", block.mlp_writer)):
        if path is None:
            continue
        caught: list[Tensor] = []
        hook = subject.module(path).register_forward_pre_hook(
            lambda module, args, caught=caught: caught.append(args[0])
        )
        bare(subject, examples)
        hook.remove()
        (values,) = record(subject, Site("language", kind)[-1], examples).values()
        assert torch.equal(values.flatten(1), caught[0].reshape(len(values), -1))
        if kind == "heads":
            assert values.shape[1:] == (block.heads, block.head_width)


def test_spans_part_the_prompt(subject: Subject):
    examples = examples_for(subject, 2, answers=True)
    site = language.residual[0]
    taken = record(subject, [site @ span for span in ("all", "text", "last", "answer")], examples)
    counts = {str(s.span): torch.bincount(taken.examples(s), minlength=2).tolist() for s in taken}
    encoded = subject.encode(examples, answers=True)
    real = encoded.inputs["attention_mask"].sum(1).tolist()
    answers = encoded.layout.answers.tolist()
    assert counts["all"] == real
    assert counts["last"] == [1, 1]
    assert counts["answer"] == answers
    assert all(count > 0 for count in answers)
    for row in range(2):
        everything = taken.per_example(site[0])[row]
        assert torch.equal(taken.per_example(site[0] @ "last")[row][0], everything[-answers[row] - 1])
        assert torch.equal(taken.per_example(site[0] @ "answer")[row], everything[-answers[row] :])
    if subject.anatomy.image_token is not None:
        images = record(subject, site @ "image", examples)
        marks = (encoded.inputs["input_ids"] == subject.anatomy.image_token).sum(1).tolist()
        assert torch.bincount(images.examples(site[0] @ "image"), minlength=2).tolist() == marks
        assert [a + b for a, b in zip(counts["text"], marks, strict=True)] == real


@pytest.mark.parametrize("family", SEES)
def test_image_side_rows_belong_to_their_examples(opened, family: str):
    subject = opened(family)
    examples = examples_for(subject, 3)
    sites = [vision.residual[-2], projector.output]
    together, alone = record(subject, sites, examples, batch_size=3), record(subject, sites, examples, batch_size=1)
    for site in together:
        for theirs, ours in zip(together.per_example(site), alone.per_example(site), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(*together.per_example(projector.output)[:2])


def test_layers_nobody_reads_do_not_run(llava: Subject):
    ran: list[int] = []
    assert llava.anatomy.language is not None
    hooks = [
        llava.module(block.path).register_forward_hook(lambda module, args, output, n=number: ran.append(n))
        for number, block in enumerate(llava.anatomy.language.layers)
    ]
    record(llava, language.residual[1], examples_for(llava, 1))
    first = list(ran)
    ran.clear()
    record(llava, vision.features, examples_for(llava, 1))
    second = list(ran)
    for hook in hooks:
        hook.remove()
    assert first == [0, 1]
    assert second == []


def test_a_model_that_writes_in_place_is_recorded_right(llava: Subject):
    examples = examples_for(llava, 1)
    truth = record(llava, language.residual[0], examples)[language.residual[0]].clone()
    block = llava.module(llava.anatomy.tower("language").layers[1].path)

    def spoil(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        args[0].mul_(2)

    hook = block.register_forward_pre_hook(spoil)
    try:
        taken = record(llava, [language.residual[0], language.residual[1]], examples)[language.residual[0]]
    finally:
        hook.remove()
    assert torch.equal(taken, truth)


def test_gather_sums_what_record_lists(subject: Subject):
    examples = examples_for(subject, 3)
    site = language.residual[1]
    values = record(subject, site, examples)[site[1]].double()
    sums = gather(subject, {site: Moments()}, examples, batch_size=2)[site[1]]
    assert sums.count == len(values)
    torch.testing.assert_close(sums.mean, values.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums.variance, values.var(0), rtol=1e-3, atol=1e-5)


def test_shards_merge_to_one_pass(llava: Subject):
    examples = examples_for(llava, 4)
    site = language.mlp[0] @ "text"
    for empty in (Moments(), Gram(), Histogram(-3, 3), TopK(3)):
        whole = gather(llava, {site: empty}, examples, batch_size=1)[site[0] @ "text"]
        parts = [gather(llava, {site: empty}, examples[i : i + 1], batch_size=1)[site[0] @ "text"] for i in range(4)]
        merged = parts[0] + parts[1] + (parts[2] + parts[3])
        for name, ours in vars(whole).items():
            theirs = getattr(merged, name)
            if isinstance(ours, Tensor) and name != "examples":
                torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-9)
            elif not isinstance(ours, Tensor):
                assert theirs == ours


# Changing -----------------------------------------------------------------------------------------------------------


def test_idle_edits_and_masks_of_ones_are_identical_to_the_bit(subject: Subject):
    examples = examples_for(subject, 2)
    width = subject.anatomy.tower("language").width
    heads = subject.anatomy.tower("language").layers[-1].heads
    assert heads is not None
    before = bare(subject, examples)
    for plan in (
        Plan({language.heads[-1]: Mask.ones(heads)}),
        Plan({language.heads[-1]: Mask.ones(heads, rows=2)}),
        Plan({language.residual: Mask.ones(width)}),
        Plan({language.residual: Scale(1.0), language.mlp: Add(torch.randn(width), scale=0.0)}),
        Plan({language.residual: Project(torch.randn(2, width), strength=0.0), language.attention: Noise(0.0)}),
        Plan({language.residual: Scale(torch.ones(width))}),
    ):
        assert torch.equal(changed(subject, examples, plan), before)


EDITS: tuple[Edit, ...] = (Zero(), Scale(0.3), Clamp(-0.1, 0.1), Replace(0.5), Mean(), Noise(0.5, seed=3))


@pytest.mark.parametrize(
    ("family", "edit"),
    [*((family, EDITS[0]) for family in (*SEES, *READS)), *(("llava", edit) for edit in EDITS[1:])],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_edits_change_the_logits_and_leave_no_trace(opened, family: str, edit: Edit):
    subject = opened(family)
    examples = examples_for(subject, 2)
    before, weights = bare(subject, examples), weight_hash(subject.model)
    plan = Plan({language.residual[0]: edit})
    first = changed(subject, examples, plan)
    assert not torch.equal(first, before)
    assert torch.equal(changed(subject, examples, plan), first)
    assert torch.equal(bare(subject, examples), before)
    assert hook_count(subject) == 0
    assert weight_hash(subject.model) == weights


@pytest.mark.parametrize("family", SEES)
@pytest.mark.parametrize("site", [vision.residual[-2], projector.input, projector.output], ids=str)
def test_edits_on_the_image_side_reach_the_logits(opened, family: str, site: Site):
    subject = opened(family)
    examples = examples_for(subject, 1)
    assert not torch.equal(changed(subject, examples, Plan({site: Scale(0.0)})), bare(subject, examples))


def test_an_edit_at_the_last_token_touches_no_other(subject: Subject):
    examples = examples_for(subject, 1)
    before, after = bare(subject, examples), changed(subject, examples, Plan({language.residual[1] @ "last": Zero()}))
    if subject.anatomy.family != "paligemma":  # its prompt's tokens see one another both ways
        torch.testing.assert_close(after[:, :-1], before[:, :-1], rtol=0, atol=0)
    assert not torch.equal(after[:, -1], before[:, -1])


def test_one_head_of_a_plan_is_one_head(llava: Subject):
    examples = examples_for(llava, 1)
    sites = [language.heads[1]]
    before = record(llava, sites, examples).stacked()[0]
    with edited(llava, Plan({language.heads[1, 2]: Zero()})):
        after = record(llava, sites, examples).stacked()[0]
    assert bool((after[:, 2] == 0).all())
    assert torch.equal(after[:, [0, 1, 3]], before[:, [0, 1, 3]])


def test_later_edits_see_what_earlier_left(llava: Subject):
    examples, site = examples_for(llava, 1), language.residual[0]
    one = torch.ones(64)

    def residual(*plans: Plan) -> Tensor:
        if not plans:
            return record(llava, site, examples)[site]
        with edited(llava, plans[0]):
            return residual(*plans[1:])

    add, double = Plan({site: Add(one)}), Plan({site: Scale(2.0)})
    x = residual()
    torch.testing.assert_close(residual(add | double), 2 * (x + 1))
    torch.testing.assert_close(residual(double | add), 2 * x + 1)
    torch.testing.assert_close(residual(add, double), 2 * (x + 1))  # nested: the inner block is the later
    torch.testing.assert_close(residual(double, add), 2 * x + 1)


def test_leaving_an_outer_block_first_keeps_the_inner(llava: Subject):
    examples, site = examples_for(llava, 1), language.residual[0]
    x = record(llava, site, examples)[site]
    outer, inner = edited(llava, Plan({site: Scale(2.0)})), edited(llava, Plan({site: Add(torch.ones(64))}))
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    torch.testing.assert_close(record(llava, site, examples)[site], x + 1)
    inner.__exit__(None, None, None)
    assert torch.equal(record(llava, site, examples)[site], x)
    assert hook_count(llava) == 0


def test_arms_of_an_experiment_share_one_pass(subject: Subject):
    (example,) = examples_for(subject, 1)
    three = Examples([example] * 3)
    plans = [Plan({}), Plan({language.residual[0]: Scale(0.5)}), Plan({language.mlp[1]: Zero()})]
    together = changed(subject, three, Plan.arms(plans))
    alone = torch.cat([changed(subject, three, plan)[:1] for plan in plans])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-4)
    assert not torch.allclose(together[0], together[2], atol=1e-4)


def test_a_mask_per_row_acts_row_by_row(llava: Subject):
    examples = Examples([examples_for(llava, 1)[0]] * 2)
    mask = Mask(torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 1]]))
    logits = changed(llava, examples, Plan({language.heads[0]: mask}))
    torch.testing.assert_close(logits[0], bare(llava, examples)[0])
    torch.testing.assert_close(logits[1], changed(llava, examples, Plan({language.heads[0, 1]: Zero()}))[1])


def test_masks_learn_while_the_model_stays_frozen(subject: Subject):
    examples, heads = examples_for(subject, 2), subject.anatomy.tower("language").layers[-1].heads
    assert heads is not None
    mask = Mask.ones(heads)
    for parameter in subject.model.parameters():
        parameter.requires_grad_(False)
    try:
        with edited(subject, Plan({language.heads[-1]: mask})):
            subject.logits(examples).square().sum().backward()
    finally:
        for parameter in subject.model.parameters():
            parameter.requires_grad_(True)
    assert mask.values.grad is not None
    assert bool((mask.values.grad != 0).all())
    assert mask.frozen() == Scale(torch.ones(heads))


def test_generation_under_an_edit_is_what_teacher_forcing_says(subject: Subject):
    """Cached decoding sees the prompt once and then token by token; forced, it is seen whole. Edits must agree."""
    examples = examples_for(subject, 2)
    width = subject.anatomy.tower("language").width
    push = Add(torch.randn(width, generator=torch.Generator().manual_seed(4)), scale=3.0)
    # BLIP-2 generates with its language model alone, which sees no token ids: there image tokens cannot be told.
    sees_ids = subject.anatomy.image_token is not None and subject.anatomy.family != "blip-2"
    spans = ["all", "last", *(["image", "text"] if sees_ids else [])]
    for span in spans:
        plan = Plan({language.residual[1] @ span: push})
        for row in range(2):
            encoded = subject.encode(examples[row : row + 1])
            with torch.no_grad(), edited(subject, plan):
                from glasshouse.model.layout import PromptLayout, laid_out

                with laid_out(encoded.layout):
                    said = subject.model.generate(
                        **encoded.inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False,
                        pad_token_id=subject.prompts.pad_token, output_scores=True, return_dict_in_generate=True,
                    )  # fmt: skip
                prompt = encoded.inputs["input_ids"].shape[1]
                whole = dict(encoded.inputs)
                answer = said.sequences[:, prompt:]
                whole["input_ids"] = said.sequences
                whole["attention_mask"] = torch.ones_like(said.sequences)
                for name in ("token_type_ids", "mm_token_type_ids"):
                    if name in whole:
                        causal = int(subject.anatomy.family == "paligemma")  # there, 1 marks what is not the prompt
                        whole[name] = torch.cat([whole[name], torch.full_like(answer, causal)], 1)
                if "cross_attention_mask" in whole:
                    mask = whole["cross_attention_mask"]
                    whole["cross_attention_mask"] = torch.cat([mask, mask[:, -1:].expand(-1, 4, -1, -1)], 1)
                with laid_out(PromptLayout(torch.tensor([4]), encoded.layout.images, True)):
                    forced = subject.model(**whole, use_cache=False).logits[0, prompt - 1 : -1]
            for step, scores in enumerate(said.scores):
                kept = scores[0].isfinite()  # min_new_tokens rules out the end token
                torch.testing.assert_close(scores[0][kept], forced[step][kept].float(), rtol=1e-3, atol=1e-3)


def test_answer_edits_leave_the_first_generated_token_alone(llava: Subject):
    examples = examples_for(llava, 2)
    push = Plan({language.residual[0] @ "answer": Add(torch.randn(64), scale=50.0)})
    plain = llava.generate(examples, max_new_tokens=6)
    with edited(llava, push):
        pushed = llava.generate(examples, max_new_tokens=6)
    first = [llava.logits(examples).argmax(-1).tolist()]
    with edited(llava, push):
        assert [llava.logits(examples).argmax(-1).tolist()] == first
    assert pushed != plain


def test_an_exception_inside_leaves_no_hook(llava: Subject):
    plan = Plan({language.residual: Zero(), projector.output: Zero()})

    def fail() -> None:
        with edited(llava, plan):
            bare(llava, examples_for(llava, 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert hook_count(llava) == 0


def test_an_exception_inside_the_model_leaves_no_hook(llava: Subject):
    wrong = Plan({language.residual[0]: Replace(torch.zeros(3, 5))})
    with pytest.raises(BadInput, match="the replacement is"), edited(llava, wrong):
        bare(llava, examples_for(llava, 1))
    assert hook_count(llava) == 0
    bare(llava, examples_for(llava, 1))


@pytest.mark.parametrize(
    ("site", "fix"),
    [("language.residual[9]", r"layer 9: there are 3"), ("language.heads[0,7]", r"head 7: there are 4")],
)
def test_a_wrong_site_in_a_plan_is_refused_before_anything_is_hooked(llava: Subject, site: str, fix: str):
    with (
        pytest.raises(BadInput, match=fix),
        edited(llava, Plan({language.residual: Zero(), Site.parse(site): Zero()})),
    ):
        pass
    assert hook_count(llava) == 0


def test_rows_beyond_the_batch_are_refused(llava: Subject):
    with pytest.raises(BadInput, match="row 5 of a batch of 1"):
        changed(llava, examples_for(llava, 1), Plan({language.residual[0]: Zero()}).for_rows(5))


# Adapters -----------------------------------------------------------------------------------------------------------


def test_a_lora_layer_is_the_layer_it_wraps(folder):
    from peft import LoraConfig, get_peft_model

    from glasshouse.model.opening import open_subject

    place = folder("llava")
    plain = open_subject(place)
    config = LoraConfig(r=2, target_modules=["o_proj", "down_proj", "q_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wrapped = get_peft_model(plain.model, config)
    subject = open_subject(wrapped, processor=plain.processor)
    assert subject.certificate.failures == ()
    assert subject.anatomy.tower("language").layers[0].attention_writer.endswith("self_attn.o_proj")
    examples = examples_for(subject, 2)
    assert not torch.equal(bare(subject, examples), bare(open_subject(place), examples))
    (heads,) = record(subject, language.heads[0], examples[:1]).values()
    assert heads.shape[1:] == (4, 32)
    answers = subject.generate(examples, max_new_tokens=3)
    with edited(subject, Plan({language.residual[0]: Scale(-3.0)})):
        assert subject.generate(examples, max_new_tokens=3) != answers


# Attention patterns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [f for f in (*SEES, *READS) if f not in ("mllama",)])
def test_patterns_are_probabilities_and_reading_them_changes_nothing(opened, family: str):
    subject = opened(family)
    examples = examples_for(subject, 2)
    before = bare(subject, examples)
    taken = record(subject, [language.pattern[1], language.residual[1]], examples)
    rows = taken[language.pattern[1]]
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]), rtol=1e-4, atol=1e-4)
    positions = taken.positions(language.pattern[1])
    future = torch.arange(rows.shape[-1])[None] > positions[:, None]
    if family not in ("paligemma", "gemma3"):  # these let the prompt's tokens see one another both ways
        assert float(rows.transpose(0, 1)[:, future].abs().max()) == 0
    assert torch.equal(bare(subject, examples), before)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_patterns_agree_with_transformers_own(folder, implementation: str):
    from glasshouse.model.opening import open_subject

    subject = open_subject(folder("llama"))
    examples = examples_for(subject, 1)
    subject.model.set_attn_implementation("eager")
    encoded = subject.encode(examples)
    with torch.no_grad():
        truth = subject.model(**encoded.inputs, output_attentions=True).attentions[2][0]
    subject.model.set_attn_implementation(implementation)
    ours = record(subject, language.pattern[2], examples)[language.pattern[2]]
    torch.testing.assert_close(ours.transpose(0, 1), truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "llama", "gemma2"])
def test_a_pattern_put_back_as_it_was_changes_nothing(opened, family: str):
    subject = opened(family)
    examples = examples_for(subject, 2)
    keep = Plan({language.pattern[1]: AttentionPattern("uniform", strength=1e-12)})
    real = subject.encode(examples).inputs["attention_mask"].bool()  # padding attends to nothing anybody reads
    torch.testing.assert_close(
        changed(subject, examples, keep)[real], bare(subject, examples)[real], rtol=1e-4, atol=1e-5
    )


def test_cutting_a_key_equals_masking_it(opened):
    subject = opened("llava")
    examples = examples_for(subject, 1)
    cut = Plan({language.pattern[1] @ "last": AttentionPattern("cut", keys="image")})
    with edited(subject, cut):
        rows = record(subject, [language.pattern[1], language.residual[1] @ "last"], examples)
    after = rows[language.pattern[1]]
    before = record(subject, language.pattern[1], examples)[language.pattern[1]]
    images = record(subject, language.residual[1] @ "image", examples).positions(language.residual[1] @ "image")
    assert torch.equal(after[:-1], before[:-1])
    assert float(after[-1][:, images].abs().max()) == 0
    others = [key for key in range(after.shape[-1]) if key not in images.tolist()]
    expected = before[-1][:, others] / before[-1][:, others].sum(-1, keepdim=True)
    torch.testing.assert_close(after[-1][:, others], expected, rtol=1e-5, atol=1e-7)


def test_uniform_over_the_image_preserves_its_mass(opened):
    subject = opened("llava")
    examples = examples_for(subject, 1)
    site = language.pattern[0, 1] @ "last"
    with edited(subject, Plan({site: AttentionPattern("uniform", keys="image")})):
        after = record(subject, language.pattern[0] @ "last", examples)[language.pattern[0] @ "last"]
    before = record(subject, language.pattern[0] @ "last", examples)[language.pattern[0] @ "last"]
    images = record(subject, language.residual[0] @ "image", examples).positions(language.residual[0] @ "image")
    torch.testing.assert_close(after[0, 1, images].sum(), before[0, 1, images].sum())
    assert float(after[0, 1, images].std()) < 1e-7
    assert torch.equal(after[0, [0, 2, 3]], before[0, [0, 2, 3]])


def test_pattern_edits_work_while_generating(opened):
    subject = opened("llava")
    examples = examples_for(subject, 2)
    plain = subject.generate(examples, max_new_tokens=5)
    with edited(subject, Plan({language.pattern: AttentionPattern("cut", keys="image")})):
        cut = subject.generate(examples, max_new_tokens=5)
    assert cut != plain
    assert subject.generate(examples, max_new_tokens=5) == plain
    assert str(subject.model.config.text_config._attn_implementation) == "sdpa"


def test_pattern_blocks_may_end_in_any_order(opened):
    subject = opened("llava")
    examples = examples_for(subject, 1)
    before = bare(subject, examples)
    cut = AttentionPattern("cut", keys="image")
    one, two = (edited(subject, Plan({language.pattern[layer]: cut})) for layer in (0, 1))
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    alone = bare(subject, examples)
    two.__exit__(None, None, None)
    assert torch.equal(alone, changed(subject, examples, Plan({language.pattern[1]: cut})))
    assert torch.equal(bare(subject, examples), before)
    assert subject.model.config.text_config._attn_implementation == "sdpa"


def test_threads_take_turns(llava: Subject):
    from concurrent.futures import ThreadPoolExecutor

    examples = examples_for(llava, 4)
    site = language.residual[1] @ "last"
    truth = [record(llava, site, examples[i : i + 1])[site] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: record(llava, site, examples[i % 4 : i % 4 + 1])[site], range(40)))
    for number, residual in enumerate(found):
        assert torch.equal(residual, truth[number % 4])


@pytest.mark.parametrize("rows", [(), (-1,)])
def test_rows_that_name_nothing_are_refused(rows: tuple[int, ...]):
    with pytest.raises(BadInput, match="name at least one row"):
        Plan({language.residual[0]: Zero()}).for_rows(*rows)


def test_pattern_rows_beyond_the_batch_are_refused(llava: Subject):
    plan = Plan({language.pattern[0]: AttentionPattern()}).for_rows(9)
    with pytest.raises(BadInput, match="row 9 of a batch of 2"):
        changed(llava, examples_for(llava, 2), plan)


def test_chunked_prefill_is_refused_where_it_would_be_taken_for_the_answer(llava: Subject):
    from glasshouse.model.layout import laid_out

    encoded = llava.encode(examples_for(llava, 1))
    with (
        pytest.raises(BadInput, match="without chunked prefill"),
        edited(llava, Plan({language.residual[0] @ "answer": Zero()})),
        laid_out(encoded.layout),
        torch.no_grad(),
    ):
        llava.model.generate(**encoded.inputs, max_new_tokens=2, do_sample=False, prefill_chunk_size=8)
