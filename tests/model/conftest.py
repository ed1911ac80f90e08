"""Tiny real models of many families, opened once, and examples for them."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.model.opening import open_subject
from glasshouse.model.subject import Subject

SEES = ("llava", "llava_next", "qwen3_vl", "idefics3", "paligemma", "gemma3", "mllama", "blip-2")
"""Families that differ in how an image enters: one frame, tiles, packed patches, shuffled pixels, a prefix that sees
ahead, pooling, cross-attention, queries."""
READS = ("llama", "gemma2", "gpt2", "mixtral")
"""Families that differ in what a layer is: plain, capped and windowed, learned positions, experts."""

Opener = Callable[[str], Subject]


def noise(seed: int, width: int = 40, height: int = 40) -> StoredImage:
    """A picture no two seeds share."""
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return StoredImage(data=buffer.getvalue())


def examples_for(subject: Subject, n: int = 3, *, answers: bool = False) -> Examples:
    """Prompts of different lengths, with one image each where the model sees."""
    sees, reads = subject.anatomy.vision is not None, subject.anatomy.language is not None
    return Examples(
        Example(
            prompt="what is this" + " really" * number if reads else "",
            images=(noise(number),) if sees else (),
            answer="a red square" + " indeed" * (n - number) if answers else None,
        )
        for number in range(n)
    )


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    """`opened("llava")`: a tiny random LLaVA, the same one all session long."""
    root = tmp_path_factory.mktemp("tiny")

    @cache
    def opener(family: str) -> Subject:
        return open_subject(tiny.checkpoint(family, root / family))

    return opener


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder("llava")`: a checkpoint folder nobody else writes to."""
    return lambda family: tiny.checkpoint(family, tmp_path_factory.mktemp("own") / family)
