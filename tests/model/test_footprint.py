"""Is what a model takes counted right, before a weight of it is read?"""

import json
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from adapter_folders import random_adapter
from glasshouse.model import placement
from glasshouse.model.configs import on_meta
from glasshouse.model.finder import find_anatomy
from glasshouse.model.footprint import Footprint, Length
from glasshouse.model.machine import multiplication_rate
from glasshouse.model.outline import USUAL, outlined
from glasshouse.model.placement import check_fits
from glasshouse.values.errors import BadInput

from .conftest import KINDS, Opener, examples_for, slow_but

QUICK = ("llava", "qwen3_vl", "gemma3", "mixtral", "gpt2", "vit")
SIZES = {"vision": 303_507_456, "projector": 20_979_712, "language": 6_738_939_904}
"""Parameters of LLaVA-1.5-7B as its authors' checkpoint has them."""


def llava_7b() -> LlavaConfig:
    vision = CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                              image_size=336, patch_size=14)  # fmt: skip
    text = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
                       vocab_size=32064)  # fmt: skip
    return LlavaConfig(vision_config=vision, text_config=text)


def footprint_7b(dtype: torch.dtype) -> Footprint:
    model = on_meta("7b", llava_7b())
    return Footprint.of(model, find_anatomy(model), dtype)


def test_a_7b_llava_is_counted_in_less_than_a_second():
    footprint_7b(torch.bfloat16)  # what transformers imports at the first model is not what is measured
    began = time.process_time()
    footprint = footprint_7b(torch.bfloat16)
    assert time.process_time() - began < 1
    assert dict(footprint.parameters) == SIZES
    assert footprint.weights == pytest.approx(2 * sum(SIZES.values()), rel=1e-4)  # and a few buffers
    assert footprint_7b(torch.float32).weights == pytest.approx(4 * sum(SIZES.values()), rel=1e-4)


def test_operations_are_two_for_each_parameter_and_token_and_those_of_attention():
    footprint = footprint_7b(torch.bfloat16)
    language = SIZES["language"] - 4096 * 32064  # the input embeddings are looked up
    linear = footprint.operations(Length(tokens=1)) - 4 * 32 * 4096
    assert linear == pytest.approx(2 * language, rel=1e-4)  # norms multiply too, a thousandth as often
    attention = footprint.operations(Length(1000)) - 1000 * linear
    assert attention == pytest.approx(4 * 32 * 4096 * 1000**2)
    seen = footprint.operations(Length(1, 576)) - footprint.operations(Length(1))
    assert seen == pytest.approx(576 * 2 * (SIZES["vision"] + SIZES["projector"]) + 4 * 24 * 1024 * 576**2, rel=0.01)


def test_working_memory_grows_with_tokens_and_with_gradients():
    footprint = footprint_7b(torch.bfloat16)
    once, twice = (footprint.working(Length(tokens), gradients=False) for tokens in (600, 1200))
    assert twice == 2 * once
    assert footprint.working(Length(600), gradients=True) > 10 * once  # every layer's values are kept
    assert once == 2 * 600 * (8 * 4096 + 3 * 11008)


@pytest.mark.parametrize(
    "family", slow_but(("llava", "qwen3_vl", "gemma3", "mixtral", "gpt2", "vit"), dict.fromkeys((*KINDS, "gpt2")))
)
def test_the_outline_has_the_parameters_and_bytes_of_the_opened_model(stored, opened: Opener, family: str):
    subject, outline = opened(family), outlined(str(stored(family)))
    parameters = list(subject.model.parameters())
    assert sum(outline.footprint.parameters.values()) == sum(each.numel() for each in parameters)
    assert outline.dtype == subject.model.dtype
    values = [*parameters, *subject.model.buffers()]
    assert outline.footprint.weights == sum(each.numel() * each.element_size() for each in values)
    assert set(outline.footprint.parameters) - {"elsewhere"} == set(subject.anatomy.parts)
    length = outline.length(examples_for(subject, answers=subject.generates))
    assert length != USUAL
    if subject.anatomy.vision is not None and subject.anatomy.language is not None:
        assert length.patches > 0


def test_patches_of_an_image_are_counted(stored, opened: Opener):
    subject = opened("llava")
    encoded = subject.encode(examples_for(subject, 2))
    vision = subject.model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    assert Length.of(encoded, subject.anatomy, subject.model.config) == Length(
        encoded.inputs["input_ids"].shape[1], patches
    )


def test_a_type_is_the_one_asked_for_else_the_configurations(stored, folder):
    assert outlined(str(stored("llava"))).dtype == torch.float32
    assert outlined(str(stored("llava")), dtype=torch.float16).dtype == torch.float16
    bare = folder("llama")
    text = (bare / "config.json").read_text("utf-8")
    assert '"dtype": "float32"' in text
    (bare / "config.json").write_text(text.replace('"dtype": "float32"', '"dtype": null'), "utf-8")
    assert outlined(str(bare)).dtype == torch.float32  # by the header of its weights
    (bare / "config.json").write_text(text.replace('"dtype": "float32"', '"dtype": "bfloat16"'), "utf-8")
    assert outlined(str(bare)).dtype == torch.bfloat16


def test_an_adapter_counts_the_weights_that_merging_copies(stored, tmp_path: Path):
    base = stored("llava")
    adapter = random_adapter(base, tmp_path / "adapter", target_modules=["linear_1"])
    outline = outlined(str(base), adapter=str(adapter))
    model = on_meta(str(base), outline.config)
    linear = model.get_submodule("model.multi_modal_projector.linear_1")
    assert outline.merged == 4 * sum(each.numel() for each in linear.parameters())
    assert outlined(str(base)).merged == 0


def test_an_adapter_with_a_hundred_thousand_modules_takes_no_time(stored, tmp_path: Path):
    base = stored("llava")
    adapter = random_adapter(base, tmp_path / "adapter", target_modules=["linear_1"])
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    names = [f"base_model.model.a{number}.b.c.d.lora_A.weight" for number in range(100_000)]
    header = json.dumps(dict.fromkeys(names, entry)).encode()
    (adapter / "more.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    began = time.process_time()
    outlined(str(base), adapter=str(adapter))
    assert time.process_time() - began < 10


def test_a_matrix_product_takes_the_time_that_the_rate_says():
    rate = multiplication_rate("cpu", torch.float32)
    left, right = torch.ones(512, 1024), torch.ones(1024, 2048)
    torch.matmul(left, right)

    def seconds() -> float:
        began = time.perf_counter()
        for _ in range(10):
            torch.matmul(left, right)
        return time.perf_counter() - began

    expected = 10 * 2 * 512 * 1024 * 2048 / rate
    assert expected / 5 < min(seconds() for _ in range(5)) < 5 * expected


def test_what_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch):
    model = on_meta("m", LlamaConfig(num_hidden_layers=1, hidden_size=1024, intermediate_size=1024, vocab_size=1024))
    numbers = sum(each.numel() for each in (*model.parameters(), *model.buffers()))
    monkeypatch.setattr(placement, "free_memory", lambda device: 3 * numbers)
    check_fits("m", model, torch.float16, None)
    check_fits("m", model, torch.float32, "auto")
    with pytest.raises(BadInput, match=r"^m: needs .* MiB of memory and .* MiB are free on cpu; use --dtype bfloat16"):
        check_fits("m", model, torch.float32, None)
    monkeypatch.setattr(placement, "free_memory", lambda device: numbers)
    with pytest.raises(BadInput, match=r"use --device auto, .*, or take a machine with 1 GiB|with 2 GiB"):
        check_fits("m", model, torch.float32, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (5 * numbers, 5 * numbers))
    with pytest.raises(BadInput, match="use --device cuda, or take"):
        check_fits("m", model, torch.float32, None)


def test_experts_count_as_often_as_a_token_meets_them(opened: Opener):
    subject = opened("mixtral")
    footprint = Footprint.of(subject.model, subject.anatomy, torch.float32)
    config = subject.model.config
    experts = sum(each.numel() for name, each in subject.model.named_parameters() if "experts" in name)
    share = config.num_experts_per_tok / config.num_local_experts
    matrices = sum(each.numel() for each in subject.model.parameters() if each.ndim > 1)
    embeddings = subject.model.get_input_embeddings().weight.numel()
    assert footprint.multiplied["language"] == pytest.approx(matrices - embeddings - experts * (1 - share), abs=8)


@pytest.mark.parametrize("family", ["llava", "gpt2"])
def test_a_model_in_memory_has_the_same_footprint_as_its_outline(stored, opened: Opener, family: str):
    outline = outlined(str(stored(family))).footprint
    assert replace(outline) == Footprint.of(opened(family).model, opened(family).anatomy, torch.float32)
