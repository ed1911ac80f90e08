"""Turns and images of a conversation reach the model at their places, and a model that reads one image says so."""

import re
from itertools import groupby

import pytest
import torch

from glasshouse.data.examples import Example, Examples
from glasshouse.model.opening import open_subject
from glasshouse.model.subject import Subject
from glasshouse.values.errors import BadInput

from .conftest import noise, slow_but

SEVERAL = ("llava", "llava_siglip", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3",
           "smolvlm", "paligemma", "gemma3", "internvl", "mllama", "aya_vision")  # fmt: skip
"""Families whose prompts hold several images."""
RED, BLUE, GREEN = noise(1), noise(2), noise(3)
TURNS = Example(
    "which of  and  is it", (RED, BLUE, GREEN), None, "a", "be brief", (("what is this", "a square"),),
    image_places=((0, 0), (1, 9), (1, 14)),
)  # fmt: skip


def read(subject: Subject, example: Example) -> str:
    """The prompt as the model reads it, each image as one token."""
    tokens = subject.prompts.tokenizer.convert_ids_to_tokens(subject.encode([example]).inputs["input_ids"][0].tolist())
    return subject.prompts.tokenizer.convert_tokens_to_string([token for token, _ in groupby(tokens)])


def test_every_image_stands_where_the_conversation_has_it(opened):
    text = read(opened("llava"), TURNS)
    pieces = ["be brief", "<image>", "what is this", "a square", "which of", "<image>", "and", "<image>", "is it"]
    assert re.search(".*".join(map(re.escape, pieces)), text, re.S), text
    assert text.count("<image>") == 3


def test_images_without_places_stand_in_front_as_before(opened):
    subject: Subject = opened("llava")
    example = Example("what is it", (RED, BLUE), history=(("is it red", "no"),))
    told = Example("what is it", (RED, BLUE), history=(("is it red", "no"),), image_places=((0, 0), (0, 0)))
    assert read(subject, example) == read(subject, told)
    assert torch.equal(subject.logits([example]), subject.logits([told]))


@pytest.mark.parametrize("family", slow_but(("llava", "qwen3_vl", "idefics3", "gemma3", "mllama"), SEVERAL))
def test_every_image_of_a_conversation_is_seen_at_its_place(opened, family: str):
    subject: Subject = opened(family)
    whole = subject.logits([TURNS])
    changed = {
        "another last image": Example(**{**vars(TURNS), "images": (RED, BLUE, RED)}),
        "another first image": Example(**{**vars(TURNS), "images": (GREEN, BLUE, GREEN)}),
        "exchanged images": Example(**{**vars(TURNS), "images": (RED, GREEN, BLUE)}),
        "another place": Example(**{**vars(TURNS), "image_places": ((0, 0), (0, 0), (1, 14))}),
        "another turn": Example(**{**vars(TURNS), "history": (("what is this", "a circle"),)}),
    }
    if family == "mllama":  # a token attends to the image before it alone, and here in one layer
        del changed["another first image"]
    for what, example in changed.items():
        assert (subject.logits([example]) - whole).abs().max() > 1e-4, what
    assert torch.equal(subject.logits([TURNS]), whole)


def test_a_conversation_is_answered_and_scored(opened):
    subject: Subject = opened("llava")
    asked = Example(**{**vars(TURNS), "answer": "a circle"})
    assert subject.score(Examples([asked])).shape == (1,)
    together = subject.logits([TURNS, Example(**{**vars(TURNS), "prompt": "which of  and  is it really"})])
    torch.testing.assert_close(together[:1], subject.logits([TURNS]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["blip-2", "vit"])
def test_a_model_that_reads_one_image_refuses_two(opened, family: str):
    """BLIP-2 would show its language model the first alone."""
    prompt = "" if family == "vit" else "what is this"
    with pytest.raises(BadInput, match=rf"^example a: has 2 images, and {family} reads one; keep one of them$"):
        opened(family).encode([Example(prompt, (RED, BLUE), id="a")])


def test_a_model_without_a_template_says_how_it_is_asked(opened, folder):
    place = folder("llava")
    for name in ("chat_template.jinja", "processor_config.json", "tokenizer_config.json"):
        file = place / name
        if name.endswith("jinja"):
            file.unlink(missing_ok=True)
        elif file.exists():
            file.write_text(re.sub(r'\n\s*"chat_template": ".*?(?<!\\)",?(?=\n)', "", file.read_text()))
    subject = open_subject(place)
    assert subject.prompts.form.startswith("no chat template, so prompts are plain text (images, then a line each")
    assert opened("llava").prompts.form == ""
    assert opened("vit").prompts.form == ""
    front = Example(**{**vars(TURNS), "image_places": ()})
    text = "<image>be brief\nwhat is this\na square\nwhich of  and  is it"
    assert read(subject, front).removeprefix("<s>") == text
    text = "be brief\n<image>what is this\na square\nwhich of <image> and <image> is it"
    assert read(subject, TURNS).removeprefix("<s>") == text
