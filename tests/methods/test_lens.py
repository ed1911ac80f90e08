"""The lens is exact where it must be, finds what was planted, and finds nothing where nothing is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from glasshouse.data.examples import Example, Examples
from glasshouse.methods.atlas._on_images import NOTHING_ON_IMAGES
from glasshouse.methods.atlas._shared import box_of, cells_in_box, first_tokens, grid, others
from glasshouse.methods.atlas.lens import PLAIN, TUNED, LensFinding, Options, lens
from glasshouse.model.opening import open_subject
from glasshouse.model.subject import Subject
from glasshouse.model.taps import record
from glasshouse.organisms import seedling as untrained
from glasshouse.values.blocks import Note
from glasshouse.values.errors import BadInput
from glasshouse.values.findings import Verdict
from glasshouse.values.sites import projector

SIDE = untrained.IMAGE_SIZE // untrained.PATCH
LOUD = 12.0
"""How much longer than the model's own image tokens the planted ones are."""


def planted(say: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Subject:
    """A seedling whose projector was fitted to write words into image tokens: the whole way from pixels is its own.

    `say(inside, answers, rows)` gives what each image token should be: whether it lies in the square, the answer's
    token, and the rows of the unembedding.
    """
    model, shown = untrained.model(), untrained.examples(96, seed=1)
    subject = open_subject(model, processor=untrained.processor())
    hidden = record(subject, projector.hidden, shown).stacked()[0].double()
    inside = torch.cat([cells_in_box(box_of(example), SIDE, SIDE).flatten() for example in shown])
    rows = torch.nn.functional.normalize(model.lm_head.weight.detach(), dim=1)
    wanted = LOUD * say(inside, first_tokens(subject, shown).repeat_interleave(SIDE * SIDE), rows).double()
    known = torch.cat([hidden, torch.ones(len(hidden), 1, dtype=torch.float64)], 1)
    ridge = 1e-6 * torch.eye(known.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(known.T @ known / len(known) + ridge, known.T @ wanted / len(known)).float()
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.copy_(solved[:-1].T)
        model.model.multi_modal_projector.linear_2.bias.copy_(solved[-1])
    return open_subject(model, processor=untrained.processor())


def answer_in_the_square(inside, answers, rows):
    return rows[answers] * inside[:, None]


def answer_everywhere_else(inside, answers, rows):
    return rows[answers] * (1 - inside[:, None])


def every_answer_whatever_is_seen(inside, answers, rows):
    return torch.nn.functional.normalize(rows[answers.unique()].sum(0), dim=0).expand(len(inside), -1)


@pytest.fixture(scope="module")
def fresh() -> Examples:
    """Squares that no projector was fitted to."""
    return untrained.examples(24, seed=2)


@pytest.fixture(scope="module")
def on_seedling(seedling: Subject, fresh: Examples) -> LensFinding:
    return lens(seedling, fresh, Options(tuned=True))


def test_the_last_layer_is_the_model(on_seedling: LensFinding):
    last = on_seedling.layers[-1]
    assert last.agreement.value == 1
    assert last.divergence.value == last.divergence.high == 0
    assert len(on_seedling.layers) == len(on_seedling.rows()) == 6
    assert on_seedling.examples == last.agreement.n == 24


def test_the_last_layer_is_what_the_model_says(seedling: Subject, fresh: Examples):
    """The story's first row against the logits of an ordinary forward pass."""
    story = lens(seedling, fresh[:2]).story
    choice = seedling.logits([replace(fresh[0], answer=None)]).softmax(-1).max(-1)
    torch.testing.assert_close(story.values[0, -1], choice.values[0].detach())
    assert story.texts[0][-1] == seedling.prompts.tokenizer.decode([int(choice.indices)])
    assert (story.rows[0], story.columns[-1]) == ("layer 5", "assistant:")


@pytest.fixture(scope="module")
def found(fresh: Examples) -> LensFinding:
    return lens(planted(answer_in_the_square), fresh, Options(images=3))


def test_a_planted_answer_is_found(found: LensFinding):
    seen = found.on_images
    assert seen is not None
    assert found.verdict == Verdict.DESCRIBED
    assert "carry the answer" in found.headline
    assert seen.carried
    assert seen.over_other_image.low > 0.05
    assert seen.over_random_tokens.low > 0.15


def test_a_planted_answer_is_found_where_it_is(found: LensFinding):
    seen = found.on_images
    assert seen is not None
    assert seen.pointing is not None
    assert seen.pointing.low > 3 * seen.pointing_chance
    assert 0.05 < seen.pointing_chance < 0.25
    assert len(seen.images) == 3
    for picture in seen.images:
        inside = cells_in_box(picture.box, SIDE, SIDE).bool()
        assert picture.overlay[inside].mean() > 2 * picture.overlay[~inside].mean()


def test_an_answer_planted_outside_its_box_is_not_pointed_to(fresh: Examples):
    seen = lens(planted(answer_everywhere_else), fresh).on_images
    assert seen is not None
    assert seen.pointing is not None
    assert seen.pointing.value <= seen.pointing_chance


def test_answers_said_whatever_is_seen_are_no_answer(fresh: Examples):
    """Image tokens that say the answers loudly on any image look sure of them; only another image unmasks them."""
    seen = lens(planted(every_answer_whatever_is_seen), fresh)
    assert seen.on_images is not None
    assert seen.on_images.over_random_tokens.above(0)
    assert not seen.on_images.carried
    assert "not shown to carry" in seen.headline


def test_image_tokens_of_the_negative_control_carry_nothing(on_seedling: LensFinding):
    seen = on_seedling.on_images
    assert seen is not None
    assert not seen.carried
    assert "not shown to carry" in on_seedling.headline
    assert len(on_seedling.headline.split()) <= 25


def test_a_model_that_learned_nothing_points_no_better_than_for_random_words(on_seedling: LensFinding):
    """A coloured square on grey draws the surest token of any word, learned or not: only the other words are a null."""
    seen = on_seedling.on_images
    assert seen is not None
    assert seen.pointing is not None
    assert seen.pointing_random is not None
    assert seen.pointing.overlaps(seen.pointing_random)


def test_the_tuned_lens_is_nearer_than_the_plain_one_on_examples_not_fitted(on_seedling: LensFinding):
    plain_lens, tuned_lens = on_seedling.tuned[PLAIN], on_seedling.tuned[TUNED]
    for plain, affine in list(zip(plain_lens, tuned_lens, strict=True))[:-1]:
        assert affine.high < plain.low
        assert affine.n == 12
    assert plain_lens[-1].value == 0
    assert tuned_lens[-1].value == pytest.approx(0, abs=1e-4)


def test_the_batch_size_changes_nothing_that_is_said(seedling: Subject, fresh: Examples):
    single, many = (lens(seedling, fresh[:5], Options(batch_size=size)) for size in (1, 5))
    assert [layer.agreement for layer in single.layers] == [layer.agreement for layer in many.layers]
    assert single.on_images.own.value == pytest.approx(many.on_images.own.value, rel=1e-4)
    assert single.on_images.other_image.value == pytest.approx(many.on_images.other_image.value, rel=1e-4)


def test_the_seed_reaches_the_nulls_and_only_them(seedling: Subject, fresh: Examples):
    one, other = (lens(seedling, fresh[:6], Options(seed=seed)) for seed in (0, 1))
    assert [layer.agreement for layer in one.layers] == [layer.agreement for layer in other.layers]
    assert one.on_images.own.value == other.on_images.own.value
    assert one.on_images.random_tokens.value != other.on_images.random_tokens.value


# What it is not given


def nothing_on_images(finding: LensFinding) -> bool:
    return finding.on_images is None and Note(NOTHING_ON_IMAGES) in finding.blocks()


@pytest.mark.parametrize(
    "change",
    [
        lambda examples: examples[:1],
        lambda examples: Examples(replace(example, answer=None) for example in examples[:3]),
        lambda examples: Examples(replace(example, answer="red") for example in examples[:3]),
        lambda examples: Examples(replace(example, images=()) for example in examples[:3]),
    ],
    ids=["a single example", "no answers", "one answer for all", "no images"],
)
def test_without_a_null_nothing_is_read_off_images(seedling: Subject, fresh: Examples, change):
    examples = change(fresh)
    finding = lens(seedling, examples)
    assert nothing_on_images(finding)
    assert finding.layers[-1].agreement.value == 1
    assert finding.layers[-1].agreement.n == len(examples)
    assert "images were not examined" in finding.headline


def test_too_few_examples_claim_nothing(seedling: Subject, fresh: Examples):
    headline = lens(seedling, fresh[:4]).headline
    assert headline.startswith("Inconclusive about images: ")
    assert "do not establish" in headline
    assert len(headline.split()) <= 25


def test_examples_without_an_answer_are_left_out_and_the_others_counted(seedling: Subject, fresh: Examples):
    mixed = Examples(
        replace(example, answer=None) if number % 2 else example for number, example in enumerate(fresh[:8])
    )
    finding = lens(seedling, mixed)
    assert finding.examples == 8
    assert finding.on_images.own.n == 4


def test_boxes_are_not_needed(seedling: Subject, fresh: Examples):
    finding = lens(seedling, Examples(replace(example, tags={}) for example in fresh[:4]))
    assert finding.on_images.pointing is None
    assert all(picture.box is None for picture in finding.on_images.images)


def test_a_text_only_model_is_read_off_its_prompts(tmp_path: Path):
    subject = open_subject(tiny.checkpoint("llama", tmp_path / "llama"))
    examples = Examples(Example(prompt=f"what is {word} ?", answer=word) for word in ("red", "blue", "green"))
    finding = lens(subject, examples)
    assert nothing_on_images(finding)
    assert finding.layers[-1].divergence.value == 0
    assert len(finding.story.rows) == len(finding.layers) == 3


def test_a_vision_only_model_is_refused(tmp_path: Path, fresh: Examples):
    subject = open_subject(tiny.checkpoint("vit", tmp_path / "vit"))
    images = Examples(Example(images=example.images) for example in fresh[:2])
    with pytest.raises(BadInput, match="no language model"):
        lens(subject, images)


def test_too_few_examples_to_tune_are_refused(seedling: Subject, fresh: Examples):
    with pytest.raises(BadInput, match="--tuned: 3 examples; give at least 4"):
        lens(seedling, fresh[:3], Options(tuned=True))


# Its parts


def test_another_example_has_another_answer():
    answers = torch.tensor([3, 3, 5, -1, 7])
    for seed in range(20):
        chosen = others(answers, seed)
        assert all(answers[other] not in (-1, answer) for answer, other in zip(answers, chosen, strict=True))
    assert others(torch.tensor([3, 3, -1]), 0).tolist() == [-1, -1, 0] or others(
        torch.tensor([3, 3, -1]), 0
    ).tolist() == [-1, -1, 1]


@pytest.mark.parametrize(
    ("tokens", "width", "height", "shape"),
    [(64, 64, 64, (8, 8)), (64, 640, 64, (8, 8)), (8, 40, 20, (2, 4)), (8, 20, 40, (4, 2)), (7, 30, 30, None)],
)
def test_image_tokens_lie_in_a_grid(tokens: int, width: int, height: int, shape: tuple[int, int] | None):
    assert grid(tokens, width, height) == shape


def test_a_cell_is_in_the_box_when_its_centre_is():
    assert cells_in_box((0.5, 0.0, 1.0, 0.25), 4, 4).tolist() == [[0, 0, 1, 1], [0] * 4, [0] * 4, [0] * 4]
