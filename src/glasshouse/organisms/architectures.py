"""Which architectures do organisms have? Two stock classes of transformers, small, with this world's vocabulary.

    llava      CLIP vision tower (features from the layer before the last), two-layer MLP projector, Llama decoder
    idefics3   SigLIP-like tower, pixel shuffle and one linear layer, Llama decoder, image tokens between marks

Both see 72 x 72 pixels as 36 image tokens and have six layers in each tower.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from glasshouse.organisms.drawing import SIDE
from glasshouse.organisms.questions import WORDS

Architecture = Literal["llava", "idefics3"]
IMAGE_TOKENS = 36
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "system:", "user:", "assistant:",
            "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")  # fmt: skip
SPARE = tuple(f"<spare-{number}>" for number in range(8))
"""Unused tokens, as real models have them: room for a learnt prompt."""
VOCABULARY = {word: number for number, word in enumerate((*_SPECIAL, *SPARE, *WORDS))}
TEMPLATE = (
    "<s> {% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% if m['role'] == 'assistant' %} </s>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEMPLATE_WITH_PROMPT = TEMPLATE.replace("<image> ", f"<image> {' '.join(SPARE)} ")
"""The same, with the learnt prompt behind every image."""


@dataclass(frozen=True)
class Build:
    """How one architecture is built."""

    model: Callable[[], PreTrainedModel]
    processor: Callable[[], Any]
    tower: str
    """Path of the vision tower in the model."""
    features: Callable[[nn.Module, Tensor], Tensor]
    """From the tower and pixels to the patch features that the projector reads."""


def build(architecture: Architecture, seed: int) -> PreTrainedModel:
    """The model with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers initialises from the global state, which fork_rng restores
        return BUILDS[architecture].model().eval()


def _text(**more: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=128, intermediate_size=256, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False, **more,
    )  # fmt: skip


def _vision(patch: int) -> dict[str, Any]:
    return {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 6, "num_attention_heads": 4,
            "image_size": SIDE, "patch_size": patch}  # fmt: skip


def _llava() -> PreTrainedModel:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision(12), projection_dim=64), text_config=_text(),
        image_token_index=VOCABULARY["<image>"], vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS, tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def _idefics3() -> PreTrainedModel:
    config = Idefics3Config(
        vision_config=_vision(6), text_config=_text(), scale_factor=2, image_token_id=VOCABULARY["<image>"],
        tie_word_embeddings=False,
    )  # fmt: skip
    return Idefics3ForConditionalGeneration(config)


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    words = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=[*_SPECIAL[4:], *SPARE], clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _llava_processor() -> LlavaProcessor:
    size = {"height": SIDE, "width": SIDE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer=_tokenizer(), patch_size=12, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip


def _idefics3_processor() -> Idefics3Processor:
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False, size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}
    )
    return Idefics3Processor(images, _tokenizer(), image_seq_len=IMAGE_TOKENS, chat_template=TEMPLATE)


def _clip_patches(tower: nn.Module, pixels: Tensor) -> Tensor:
    return tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]  # without the class token


def _siglip_patches(tower: nn.Module, pixels: Tensor) -> Tensor:
    return tower(pixels).last_hidden_state


BUILDS: dict[str, Build] = {
    "llava": Build(_llava, _llava_processor, "model.vision_tower", _clip_patches),
    "idefics3": Build(_idefics3, _idefics3_processor, "model.vision_model", _siglip_patches),
}
