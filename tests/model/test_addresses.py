"""Does an address select exactly the tokens it names, in every architecture, with padding, in a cache and in tiles?"""

import io
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.model.addresses import IMAGE, text_of
from glasshouse.model.controls import prompt_mask, random_tokens
from glasshouse.model.layout import laid_out
from glasshouse.model.opening import open_subject
from glasshouse.model.prompts import Encoded
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited, record
from glasshouse.numerics.randomness import seeded
from glasshouse.values.changes import Add, AttentionPattern, Plan, Zero
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import language, vision
from glasshouse.values.token_text import parse_tokens
from glasshouse.values.tokens import Masks, Tokens, phrase, region

from .conftest import noise

FAMILIES = ("llava", "qwen3_vl", "idefics3", "llama")
PROMPT = "The mat: where did the cat sit, the cat or the dog?"


def asked(subject: Subject, *prompts: str) -> Examples:
    images = (noise(1, 64, 64),) if subject.anatomy.vision is not None else ()
    return Examples(Example(prompt=prompt, images=images) for prompt in prompts)


def selected(subject: Subject, example: Example, tokens: Tokens | str) -> list[str]:
    """The tokens of the prompt that an address means, decoded one by one."""
    encoded = subject.encode([example])
    numbers = prompt_mask(subject, example, tokens).nonzero()[:, 0]
    return [subject.prompts.tokenizer.decode([token]) for token in encoded.inputs["input_ids"][0, numbers].tolist()]


@pytest.fixture(params=FAMILIES)
def subject(opened, request: pytest.FixtureRequest) -> Subject:
    return opened(request.param)


@pytest.fixture
def llava(opened) -> Subject:
    return opened("llava")


def test_phrases_are_the_tokens_that_hold_them(subject: Subject):
    (example,) = asked(subject, PROMPT)
    twice = selected(subject, example, "'the cat'")
    first, last = (selected(subject, example, phrase("the cat", number)) for number in (1, -1))
    assert "".join(first).strip() == "".join(last).strip() == "the cat"
    assert twice == first + last
    inside = selected(subject, example, "'here did th'")  # begins and ends within a token: both count whole
    assert "here did th" in "".join(inside)
    assert all("here did th" not in "".join(part) for part in (inside[1:], inside[:-1]))


def test_positions_count_the_prompt_and_sets_combine(subject: Subject):
    (example,) = asked(subject, PROMPT)
    everything = selected(subject, example, "all")
    assert selected(subject, example, "0:3") == everything[:3]
    assert selected(subject, example, "-1") == selected(subject, example, "last") == everything[-1:]
    assert selected(subject, example, "2+5") == [everything[2], everything[5]]
    assert selected(subject, example, "all - 1:") == everything[:1]
    assert selected(subject, example, "text & 'the cat'") == selected(subject, example, "'the cat'")
    if subject.anatomy.image_token is not None:
        assert selected(subject, example, "all - text") == selected(subject, example, "image")


@pytest.mark.parametrize("address", ["'the cat'", "'the cat'#2", "2:4", "-2", "text - 'the cat'", "image[0:0.5,0:0.5]"])
def test_an_edit_changes_exactly_the_named_rows_wherever_padding_stands(subject: Subject, address: str):
    if "image" in address and subject.anatomy.vision is None:
        return
    examples = asked(subject, PROMPT, "Well, well: " + PROMPT * 2)
    push = Plan({language.embeddings @ address: Add(torch.ones(64), scale=3.0)})
    before = record(subject, language.embeddings, examples, batch_size=2).per_example(language.embeddings)
    with edited(subject, push):
        after = record(subject, language.embeddings, examples, batch_size=2).per_example(language.embeddings)
    for example, old, new in zip(examples, before, after, strict=True):
        mask = prompt_mask(subject, example, address)
        assert mask.any()
        assert torch.equal((old != new).any(1), mask)


def test_answers_and_generated_tokens_do_not_shift_an_address(subject: Subject):
    plain = asked(subject, PROMPT, "Well: " + PROMPT)
    answered = Examples(replace(example, answer="the cat" * (n + 1)) for n, example in enumerate(plain))
    for address in ("'the cat'", "-1", "2:5"):
        site = language.residual[1] @ address
        torch.testing.assert_close(record(subject, site, plain)[site], record(subject, site, answered)[site])


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen3_vl", "idefics3", "internvl"])
def test_a_region_is_the_tokens_that_see_it(opened, family: str):
    """With the encoder's attention zeroed, pixels reach only the tokens of their own cell."""
    assert_pixels_reach_the_region_only(opened(family), height=64, width=64)


def test_a_region_of_a_tiled_image_is_in_its_tile_and_in_the_overview(folder):
    subject = open_subject(folder("idefics3"))
    images = subject.processor.image_processor
    images.do_image_splitting, images.size = True, {"longest_edge": 96}
    assert_pixels_reach_the_region_only(subject, height=64, width=96)
    (example,) = asked(subject, PROMPT)
    example = replace(example, images=(noise(1, 96, 64),))
    assert prompt_mask(subject, example, "image").sum() == 4 * (2 * 3 + 1)
    assert prompt_mask(subject, example, "image[0:0.1,0:0.1]").sum() == 2


def assert_pixels_reach_the_region_only(subject: Subject, height: int, width: int) -> None:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    site = language.embeddings @ "image"
    for row, column in ((0.125, 0.875), (0.625, 0.375)):
        painted = pixels.clone()
        down, across = int(row * height), int(column * width)
        painted[down - 2 : down + 2, across - 2 : across + 2] ^= 255
        example, other = (Example(prompt="what", images=(_png(each),), id="0") for each in (pixels, painted))
        with edited(subject, Plan({vision.attention: Zero()})):
            before, after = (record(subject, site, Examples([each]))[site] for each in (example, other))
        seen = prompt_mask(subject, example, region((row - 0.01, row + 0.01), (column - 0.01, column + 0.01)))
        image = prompt_mask(subject, example, "image")
        assert torch.equal((before != after).any(1), seen[image]), (row, column)


def _png(pixels: Tensor) -> StoredImage:
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return StoredImage(data=buffer.getvalue())


def test_images_are_told_apart_by_number(opened):
    for family in ("qwen3_vl", "idefics3"):
        subject = opened(family)
        example = Example(prompt=PROMPT, images=(noise(1, 64, 64), noise(2, 64, 64)), id="7")
        image, first, second = (prompt_mask(subject, example, address) for address in ("image", "image#1", "image#2"))
        assert torch.equal(first | second, image)
        assert not (first & second).any()
        assert first.nonzero().max() < second.nonzero().min()
        with pytest.raises(BadInput, match=r"^@image#3: example 7 has 2 images$"):
            prompt_mask(subject, example, "image#3")


def test_a_single_image_has_a_number_where_its_grid_is_unknown(opened):
    subject = opened("llava_next")
    (example,) = asked(subject, PROMPT)
    image = prompt_mask(subject, example, "image")
    assert image.any()
    for address in ("image#1", "image[0:1,0:1]"):
        assert torch.equal(prompt_mask(subject, example, address), image)
    with pytest.raises(BadInput, match=r"^@image#2: example 0 has 1 image$"):
        prompt_mask(subject, example, "image#2")


def test_queries_and_keys_of_a_pattern_are_addresses(llava: Subject):
    examples = asked(llava, PROMPT, "Well: " + PROMPT)
    site = language.pattern[1] @ "'sit'"
    cut = Plan({site: AttentionPattern("cut", keys="'the cat'#1 | image[0:0.5,0:1]")})
    before = record(llava, language.pattern[1], examples)
    with edited(llava, cut):
        after = record(llava, language.pattern[1], examples)
    for row, example in enumerate(examples):
        old, new = (each.per_example(language.pattern[1])[row][..., :] for each in (before, after))
        queries = prompt_mask(llava, example, "'sit'")
        keys = prompt_mask(llava, example, "'the cat'#1 | image[0:0.5,0:1]")
        assert (old[queries][..., : len(keys)][..., keys] > 0).all()
        assert (new[queries][..., : len(keys)][..., keys] == 0).all()
        torch.testing.assert_close(new[~queries], old[~queries])


@pytest.mark.parametrize(
    "plan",
    [
        Plan({language.pattern @ "answer": AttentionPattern("cut", keys="'the cat' | image[0:0.5,0:1] | 0:2")}),
        Plan({language.residual[1] @ "'the cat' | -2": Add(torch.ones(64), scale=3.0)}),
    ],
    ids=["keys", "rows"],
)
def test_decoding_from_a_cache_is_what_teacher_forcing_says(llava: Subject, plan: Plan):
    encoded = llava.encode(asked(llava, PROMPT))
    with torch.no_grad(), edited(llava, plan), laid_out(encoded.layout):
        run = llava.model.generate(
            **encoded.inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    whole = {**encoded.inputs, "input_ids": run.sequences, "attention_mask": torch.ones_like(run.sequences)}
    layout = replace(encoded.layout, answers=torch.tensor([4]))
    with torch.no_grad(), edited(llava, plan), laid_out(layout):
        forced = llava.model(**whole, use_cache=False).logits[:, -5:-1]
    torch.testing.assert_close(torch.stack(run.logits, 1), forced, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(llava.forward(Encoded(whole, layout)).logits[:, -5:-1], forced, atol=1e-2)


def test_padding_shifts_no_address_while_generating(subject: Subject):
    examples = asked(subject, PROMPT, "Well, well: " + PROMPT * 2)
    push = Plan({language.residual[1] @ "'the cat'#1 | -1": Add(torch.randn(64, generator=seeded(1)), scale=8.0)})
    plain = subject.generate(examples, max_new_tokens=5)
    with edited(subject, push):
        together = subject.generate(examples, max_new_tokens=5, batch_size=2)
        alone = subject.generate(examples, max_new_tokens=5, batch_size=1)
    assert together == alone
    assert all(pushed != unpushed for pushed, unpushed in zip(together, plain, strict=True))


def test_random_controls_are_drawn_from_each_prompt(subject: Subject):
    examples = asked(subject, PROMPT, "Well: " + PROMPT)
    masks = random_tokens(subject, examples, 3, among="text - 'the cat'", seed=4)
    assert masks == random_tokens(subject, examples, 3, among="text - 'the cat'", seed=4)
    assert masks != random_tokens(subject, examples, 3, among="text - 'the cat'", seed=5)
    assert parse_tokens(str(masks)) == masks
    site = language.residual[0] @ masks
    assert torch.bincount(record(subject, site, examples).examples(site)).tolist() == [3, 3]
    for example in examples:
        assert not (prompt_mask(subject, example, masks) & ~prompt_mask(subject, example, "text - 'the cat'")).any()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("'a dog'", r"^'a dog' is not in the prompt of example 1$"),
        ("'the cat'#3", r"^'the cat'#3: the prompt of example 1 holds it 2 times$"),
        ("99", r"^@99: the prompt of example 1 has \d+ tokens \(0-\d+\)$"),
        (Masks.of_examples({"0": torch.tensor([True])}), r"^@mask: example 1 has no mask; there are 1 for other"),
        (Masks.of_examples({"1": torch.tensor([True])}), r"^@mask: the mask of example 1 is for 1 tokens, its prompt"),
    ],
)
def test_what_is_not_there_is_named(llava: Subject, address: Tokens | str, told: str):
    example = asked(llava, PROMPT, PROMPT)[1]
    with pytest.raises(BadInput, match=told):
        record(llava, language.residual[0] @ address, Examples([example]))


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("llava_next", "the grid of the image's tokens cannot be known here .* tiles in 1 runs"),
        ("blip-2", "the projector of blip-2 has attention of its own"),
        ("mllama", "the grid of the image's tokens cannot be known here"),
    ],
)
def test_regions_that_cannot_be_known_are_refused(opened, family: str, told: str):
    with pytest.raises(BadInput, match=told):
        prompt_mask(opened(family), asked(opened(family), PROMPT)[0], "image[0:0.5,0:1]")


def test_a_model_called_directly_knows_no_text(llava: Subject):
    encoded = llava.encode(asked(llava, PROMPT))
    plan = Plan({language.residual[0] @ "'the cat'": Zero()})
    with edited(llava, plan), pytest.raises(BadInput, match=r"^@'the cat': the model was called directly"):
        llava.model(**encoded.inputs)


@pytest.mark.parametrize("text", ["Grüße, 你好 🙂 — naïve", "a  b\n\n c", "🙂🙂"])
def test_every_character_has_its_tokens(llava: Subject, text: str):
    tokenizer = llava.prompts.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    image = llava.anatomy.image_token
    whole, holders = text_of(tokenizer, [image, *ids, image, *ids], [True, *[False] * len(ids)] * 2)
    assert whole == f"{IMAGE}{text}" * 2
    assert len(holders) == len(whole)
    assert sorted({token for holder in holders for token in holder}) == list(range(2 * len(ids) + 2))
