"""Tiny real models of many families, opened once, and examples for them."""

import io
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

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

KINDS = ("llava", "llava_next", "qwen3_vl", "idefics3", "gemma3", "mllama", "blip-2", "llama", "mixtral", "vit")
"""One family of each kind: one frame, tiles, merged patches, shuffled pixels, pooling, cross-attention, queries, text
only, experts, vision only. What every family shares is tried on these; `make test-slow` tries the complete list."""

Opener = Callable[[str], Subject]


def slow_but(quick: Iterable[str], families: Iterable[str]) -> list[Any]:
    """Parameters for all the families, of which only `quick` run in `make test`."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in families]


def noise(seed: int, width: int = 40, height: int = 40) -> StoredImage:
    """An image that no two seeds share."""
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
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`stored("llava")`: the folder of a tiny random LLaVA, built once. Tests only read it."""
    root = tmp_path_factory.mktemp("tiny")
    return cache(lambda family: tiny.checkpoint(family, root / family))


@pytest.fixture(scope="session")
def opened(stored: Callable[[str], Path]) -> Opener:
    """`opened("llava")`: a tiny random LLaVA, opened once. Tests leave it unchanged."""
    return cache(lambda family: open_subject(stored(family)))


@pytest.fixture(scope="session")
def folder(stored: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder("llava")`: a copy of the checkpoint's folder that the test may change."""
    return lambda family: shutil.copytree(stored(family), tmp_path_factory.mktemp("own") / family)
