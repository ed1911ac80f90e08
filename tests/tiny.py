"""What does a model family look like when it is small enough to build in a test?

Every family of the image-text-to-text auto mapping, some text-only decoders and some vision encoders are built from a
configuration that a generic walk has shrunk: on the meta device (`on_meta`), or, for the families in `CHECKPOINTS`,
with seeded random weights and a working processor in a folder that loads offline (`checkpoint`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from glasshouse.model.processors import load_processor

VISION_LANGUAGE: tuple[str, ...] = tuple(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
TEXT_ONLY: tuple[str, ...] = tuple("llama qwen3 gemma gemma2 gpt2 phi olmo2 mixtral qwen3_moe gpt_neox".split())
VISION_ONLY: tuple[str, ...] = tuple("vit deit clip_vision_model siglip_vision_model dinov2".split())
_TIMM = "its vision tower is a timm model, and timm does not import without torchvision"
CANNOT_BUILD: dict[str, str] = dict.fromkeys(("fast_vlm", "gemma3n", "perception_lm"), _TIMM)

VOCAB, IMAGE, PATCH = 512, 32, 8


@dataclass(frozen=True)
class Tower:
    """The sizes of one tower; the two differ in width, heads and depth, so that mixing them up shows."""

    width: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    depth: int


LANGUAGE = Tower(width=64, inner=96, heads=4, kv_heads=2, head_dim=32, depth=3)
VISION = Tower(width=32, inner=80, heads=2, kv_heads=2, head_dim=16, depth=4)

# What a field means is read off its name. Each rule gets the old value, the tower that owns the field and the language
# tower. Fields that no rule names keep their value; so do zeros, flags and fields that are not set.
Rule = Callable[[int, Tower, Tower], int]
KINDS: tuple[tuple[Rule, str], ...] = (
    (
        lambda old, own, _: min(old, own.depth),
        "num_hidden_layers num_layers n_layers n_layer layers depth encoder_layers decoder_layers num_decoder_layers "
        "conf_num_hidden_layers resampler_depth",
    ),
    (
        lambda old, own, _: min(old, 1),
        "depths aligner_num_add_layers num_res_blocks num_nextn_predict_layers first_k_dense_replace insert_layer_id "
        "num_kv_shared_layers n_group topk_group num_global_layers n_layers_per_attn_res_block",
    ),
    (lambda old, own, _: min(old, 2), "num_groups n_groups heads_per_ngram number_of_conv_states resampler_n_latents"),
    (
        lambda old, own, _: own.heads,
        "num_attention_heads num_heads attention_heads n_head encoder_attention_heads decoder_attention_heads "
        "swa_num_attention_heads num_sliding_attention_heads conf_num_attention_heads index_n_heads linear_num_heads "
        "mamba_num_heads resampler_n_heads resampler_heads linear_num_value_heads",
    ),
    (
        lambda old, own, _: min(old, own.kv_heads),
        "num_key_value_heads swa_num_key_value_heads linear_num_key_heads",
    ),
    (
        lambda old, own, _: own.head_dim,
        "head_dim swa_head_dim v_head_dim qk_head_dim index_head_dim linear_head_dim linear_key_head_dim "
        "linear_value_head_dim mamba_head_dim resampler_head_dim resampler_dim_head d_kv",
    ),
    (lambda old, own, _: own.head_dim // 2, "qk_nope_head_dim qk_rope_head_dim rotary_dim"),
    (
        lambda old, own, _: own.width,
        "hidden_size hidden_sizes d_model embed_dim n_embd word_embed_proj_dim moe_hidden_size output_channels "
        "post_conv_in_channels post_conv_mid_channels post_conv_out_channels downsample_channels base_channels "
        "latent_channels downsample_hidden_size adapter_in_dim adapter_input_size kv_lora_rank q_lora_rank hc_lowrank "
        "ple_embed_dim hidden_size_per_layer_input laurel_rank conv_output_size mm_embed_dim output_proj_dims",
    ),
    (
        lambda old, own, text: text.width,
        "out_hidden_size text_hidden_size decoder_hidden_size adapter_out_dim projector_input_dim projector_output_dim "
        "output_dim projection_dim image_token_embed_dim",
    ),
    (lambda old, own, _: VISION.width, "encoder_hidden_size vision_hidden_size"),
    (
        lambda old, own, _: own.inner,
        "intermediate_size n_inner ffn_dim d_ff mlp_dim encoder_ffn_dim decoder_ffn_dim moe_intermediate_size "
        "intermediate_size_mlp dense_intermediate_size shared_intermediate_size shared_expert_intermediate_size "
        "shared_experts_intermediate_size moe_shared_expert_intermediate_size share_expert_dim merged_hidden_size "
        "projector_hidden_size projection_hidden_size projection_hidden_dim projection_intermediate_size "
        "alignment_intermediate_size block_multiple_of",
    ),
    (
        lambda old, own, _: min(old, 4),
        "num_experts num_local_experts n_routed_experts moe_num_experts pos_emb_height pos_emb_width posemb_grid_size "
        "split_ngram_parts num_query_tokens latent_query_num resampler_num_latents",
    ),
    (lambda old, own, _: min(old, 2), "num_experts_per_tok moe_topk moe_k channel_multiplier"),
    (lambda old, own, _: IMAGE, "image_size resolution max_img_size max_image_size min_image_size scale"),
    (lambda old, own, _: PATCH, "patch_size"),
    (
        lambda old, own, _: (IMAGE // PATCH) ** 2,
        "num_position_embeddings num_patches max_num_patches position_embedding_size image_seq_length seq_len "
        "img_max_token_num mm_posemb_size",
    ),
    (lambda old, own, _: IMAGE if old > IMAGE else 2, "window_size"),
    (lambda old, own, _: min(old, VOCAB), "vocab_size vocab_size_per_layer_input max_position_embeddings n_positions"),
    (
        lambda old, own, _: min(old, 64),
        "codebook_size num_embeddings ngram_vocab_size_base mel_vocab_size max_source_positions",
    ),
)
# Names of a backbone's stages; they follow from its depth.
BACKBONE = ("stage_names", "out_features", "out_indices", "_out_features", "_out_indices")
RULES: dict[str, Rule] = {name: rule for rule, names in KINDS for name in names.split()}


def _survivors(fields: dict[str, Any], depth: int, wanted: int) -> list[int]:
    """The layers out of `depth` to keep, so that of every kind of layer one stays where there is room."""
    lists = [fields[name] for name in ("layer_types", "mlp_layer_types") if len(fields.get(name) or ()) == depth]
    first = {kind: layer for layer, kind in reversed(list(enumerate(zip(*lists, strict=True))))}
    kept = sorted(first.values())[:wanted]
    return sorted(kept + [layer for layer in range(depth) if layer not in kept][: wanted - len(kept)])


def _thin(indices: list[int], old: int, new: int) -> list[int]:
    """Layer numbers out of `old` layers, as the same share of `new` layers, the last of them first."""
    wanted = max(1, round(len(indices) * new / old))
    scaled = sorted({index * new // old for index in indices})
    return scaled[-wanted:]


def _sections(section: list[int], ratio: float) -> list[int]:
    """Rotary sections whose sum is scaled by `ratio` without losing a pair to rounding."""
    scaled = [int(part * ratio) for part in section]
    scaled[0] += round(sum(section) * ratio) - sum(scaled)
    return scaled


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value)


class _Walk:
    """One pass over a configuration and its parts; special token ids stay equal wherever the same name recurs."""

    def __init__(self, language: Tower, vision: Tower) -> None:
        self.language, self.vision = language, vision
        self.ids: dict[str, int] = {"pad": 0, "bos": 1, "eos": 2, "decoder_start": 1, "sep": 2}

    def fields(self, config: PreTrainedConfig, own: Tower) -> dict[str, Any]:
        old, depth = config.to_dict(), getattr(config, "num_hidden_layers", 0)
        if "kv_lora_rank" in old:  # latent attention has one latent for all heads, so heads are not grouped
            own = replace(own, kv_heads=own.heads)
        kept = _survivors(old, depth, min(depth, own.depth)) if depth else []
        new: dict[str, Any] = {}
        for name, value in old.items():
            part, many = vars(config).get(name), _plain(value)
            if isinstance(part, PreTrainedConfig):
                new[name] = self.fields(part, self.tower(name, part, own))
            elif name in BACKBONE:
                continue
            elif "token_i" in name or name.startswith("im_") or name == "image_patch_id":
                new[name] = self.special(name, value)
            elif many and len(value) == depth:
                layers = [value[layer] for layer in kept] if value != list(range(depth)) else list(range(len(kept)))
                new[name] = self.sized(RULES[name], layers, own) if name in RULES else layers
            elif name in RULES and value:
                new[name] = self.sized(RULES[name], value, own)
            elif many and depth and name.endswith(("indexes", "indices", "idxs", "cross_attention_layers")):
                new[name] = _thin(list(value), depth, len(kept))
            else:
                new[name] = value
        if isinstance(layers := old.get("per_layer_config"), dict):
            layers = {int(layer): fields for layer, fields in layers.items()}
            new["per_layer_config"] = {
                at: {name: _same_ratio(value, old.get(name), new.get(name)) for name, value in layers[layer].items()}
                for at, layer in enumerate(kept)
                if layer in layers
            }
        self.rotary(old, new)
        return new

    def tower(self, name: str, part: PreTrainedConfig, own: Tower) -> Tower:
        sees = any(word in name for word in ("vision", "audio", "vq", "protein", "adapter"))
        return self.vision if sees or (hasattr(part, "image_size") and not hasattr(part, "vocab_size")) else own

    def special(self, name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [self.special(f"{name}{i}" if i else name, item) for i, item in enumerate(value)]
        if not _number(value) or value < VOCAB // 2:
            return value
        stem = name.rsplit("_token_i", 1)[0].rsplit("_id", 1)[0]
        return self.ids.setdefault(stem, VOCAB - 1 - len(self.ids))

    def sized(self, rule: Rule, value: Any, own: Tower) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self.sized(rule, item, own) for item in value)
        return rule(value, own, self.language) if _number(value) and value > 0 else value

    def rotary(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        rope = old.get("rope_parameters")
        if not isinstance(rope, dict):
            return
        before, after = (_head_dim(fields) for fields in (old, new))
        for section in ("mrope_section", "xdrope_section"):
            if rope.get(section) and before and after:
                new["rope_parameters"] = rope | {section: _sections(rope[section], after / before)}


def _same_ratio(value: Any, old: Any, new: Any) -> Any:
    """What one layer has instead of the value of all, in the same proportion to the shrunken one."""
    return max(1, value * new // old) if _number(value) and _number(old) and _number(new) and old else value


def _head_dim(fields: dict[str, Any]) -> float:
    heads = fields.get("num_attention_heads") or fields.get("num_heads") or 0
    return fields.get("head_dim") or (fields.get("hidden_size", 0) / heads if heads else 0)


# What the names alone do not tell, by dotted path: sizes that other sizes imply and fields whose default is unusable.
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
CORRECTIONS: dict[str, dict[str, Any]] = {
    "chameleon": {"vocabulary_map": {"<image>": 8}},
    "cohere_compass": {"text_config.rope_parameters": {"full_attention": _ROPE | {"mrope_section": [6, 5, 5]}}},
    "deepseek_ocr2": {"text_config.mlp_layer_types": lambda own, _: ["dense"] + ["sparse"] * (own.depth - 1)},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": LANGUAGE.inner,
    },
    "dots3_note": {"text_config.head_dim": 40},
    "emu3": {"vocabulary_map": {"<image>": 8, "<|extra_200|>": 9}},
    "ernie4_5_vl_moe": {"text_config.rope_parameters": _ROPE | {"mrope_section": [3, 3, 2]}},
    "granite4_vision": {
        "vision_config.hidden_size": 128,  # the connector has one head for each 64 channels
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-2, 0], [-1, 1]],
        "spatial_target_layers": lambda own, _: list(range(own.depth)),
    },
    "hunyuan_vl": {"text_config.head_dim": LANGUAGE.head_dim},
    "inkling_mm_model": {"vision_config.patch_size": lambda _, sees: 4 if sees.depth > 3 else 2},
    "mllama": {"vision_config.vision_output_dim": 2 * VISION.width},
    "molmo2": {"adapter_config.vision_feature_layer": lambda _, sees: [sees.depth - 1, 1]},
    "qwen2_vl": {"vision_config.hidden_size": LANGUAGE.width},  # the width it hands over; its own is embed_dim
    "qwen4_exp": {
        "text_config.indexer_n_heads": 2,
        "text_config.indexer_kv_heads": 1,
        "text_config.indexer_head_dim": LANGUAGE.head_dim,
        "text_config.indexer_budget": 16,
        "text_config.indexer_compress_ratio": 4,
    },
    "vipllava": {"vision_feature_layer": [-2, -3, 1]},
}


def _patch(fields: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        fields = fields[parent]
    fields[name] = value


def _shrink(config: PreTrainedConfig, corrections: dict[str, Any], language: Tower, vision: Tower) -> PreTrainedConfig:
    fields = _Walk(language, vision).fields(config, vision if config.model_type in VISION_ONLY else language)
    for path, value in corrections.items():
        _patch(fields, path, value(language, vision) if callable(value) else value)
    return type(config).from_dict(fields)


def _default(family: str) -> Any:
    """The default configuration, with its vision tower also where that is left out by default."""
    config_class: Any = CONFIG_MAPPING[family]
    config = config_class()
    blind = "vision_config" in config_class.sub_configs and config.vision_config is None
    return config_class(vision_config={}) if blind else config


def shrunken(
    family: str,
    *,
    layers: int = LANGUAGE.depth,
    vision_layers: int = VISION.depth,
    corrections: dict[str, Any] | None = None,
) -> PreTrainedConfig:
    """The family's default configuration at a size that builds in milliseconds."""
    language, vision = replace(LANGUAGE, depth=layers), replace(VISION, depth=vision_layers)
    return _shrink(_default(family), CORRECTIONS.get(family, {}) | (corrections or {}), language, vision)


def _auto(family: str) -> Any:
    if family in VISION_LANGUAGE:
        return AutoModelForImageTextToText
    return AutoModel if family in VISION_ONLY else AutoModelForCausalLM


def on_meta(family: str) -> PreTrainedModel:
    """The family's shrunken model without weights."""
    config, auto = shrunken(family), _auto(family)
    with torch.device("meta"):
        if type(config) in auto._model_mapping:
            return auto.from_config(config)
        # The mapping names the class, but the auto class does not find it by the configuration.
        return getattr(transformers, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[family])(config)


SQUARE = {"height": IMAGE, "width": IMAGE}
TILES = [[IMAGE, 2 * IMAGE], [2 * IMAGE, IMAGE], [2 * IMAGE, 2 * IMAGE]]
CORPUS = ["a photo of a red square on a blue field", "what colour is the square? the square is red", "user assistant"]
TEMPLATE = """{%- for message in messages -%}{{ message['role'] + ': ' }}
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ 'IMAGE' }}{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}{{ '\\n' }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}"""


@dataclass(frozen=True)
class Recipe:
    """What a real tiny checkpoint needs beyond its shrunken configuration."""

    images: str = ""
    images_kwargs: dict[str, Any] = field(default_factory=dict)
    processor: str = ""
    processor_kwargs: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=lambda: {"image_token": "<image>"})
    plain_tokens: tuple[str, ...] = ()
    prompt_image: str = "<image>"
    config: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    base: Callable[[], PreTrainedConfig] | None = None


_CLIP = {"size": {"shortest_edge": IMAGE}, "crop_size": SQUARE}
_LLAVA = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_QWEN_IMAGES = {"patch_size": PATCH, "size": {"shortest_edge": 16 * 16, "longest_edge": IMAGE * IMAGE}}
_QWEN = Recipe(
    images="Qwen2VLImageProcessorPil",
    images_kwargs=_QWEN_IMAGES,
    tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    plain_tokens=("<|vision_start|>", "<|vision_end|>"),
    prompt_image="<|vision_start|><|image_pad|><|vision_end|>",
    ids={
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    },
)
_IDEFICS = Recipe(
    processor="Idefics3Processor",
    images_kwargs={
        "size": {"longest_edge": IMAGE},
        "max_image_size": {"longest_edge": IMAGE},
        "do_image_splitting": False,
    },
    processor_kwargs={"image_seq_len": 4},
    plain_tokens=("<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    ids={"image_token_id": "<image>"},
)
_INDEX = {"image_token_index": "<image>"}
_VISION_TOWERS = {
    "vit": Recipe(images="ViTImageProcessorPil", images_kwargs={"size": SQUARE}),
    "dinov2": Recipe(images="BitImageProcessorPil", images_kwargs=_CLIP),
    "clip_vision_model": Recipe(images="CLIPImageProcessorPil", images_kwargs=_CLIP),
    "siglip_vision_model": Recipe(images="SiglipImageProcessorPil", images_kwargs={"size": SQUARE}),
}
_VISION_LANGUAGE = {
    "llava": Recipe(
        images="CLIPImageProcessorPil",
        images_kwargs=_CLIP,
        processor="LlavaProcessor",
        processor_kwargs=_LLAVA,
        config={"vision_feature_layer": -2, "image_seq_length": 16},
        ids=_INDEX,
    ),
    "llava_siglip": Recipe(
        base=lambda: transformers.LlavaConfig(vision_config=SiglipVisionConfig(vision_use_head=False)),
        images="SiglipImageProcessorPil",
        images_kwargs={"size": SQUARE},
        processor="LlavaProcessor",
        processor_kwargs={"patch_size": PATCH, "vision_feature_select_strategy": "full"},
        config={"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "image_seq_length": 16},
        ids=_INDEX,
    ),
    "llava_next": Recipe(
        images="LlavaNextImageProcessorPil",
        images_kwargs=_CLIP | {"image_grid_pinpoints": TILES},
        processor="LlavaNextProcessor",
        processor_kwargs=_LLAVA,
        config={"image_grid_pinpoints": TILES},
        ids=_INDEX,
    ),
    "llava_onevision": Recipe(
        images="LlavaOnevisionImageProcessorPil",
        images_kwargs={"size": SQUARE, "image_grid_pinpoints": TILES},
        processor="LlavaOnevisionProcessor",
        processor_kwargs={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        tokens={"image_token": "<image>", "video_token": "<video>"},
        config={"image_grid_pinpoints": TILES},
        ids=_INDEX | {"video_token_index": "<video>"},
    ),
    "qwen2_vl": replace(
        _QWEN,
        processor="Qwen2VLProcessor",
        config={"text_config.rope_parameters": _ROPE | {"mrope_section": [4, 2, 2]}},
    ),
    "qwen2_5_vl": replace(
        _QWEN,
        processor="Qwen2_5_VLProcessor",
        config={"text_config.rope_parameters": _ROPE | {"mrope_section": [4, 2, 2]}},
    ),
    "qwen3_vl": replace(
        _QWEN,
        processor="Qwen3VLProcessor",
        config={
            "text_config.rope_parameters": _ROPE | {"mrope_section": [6, 5, 5]},
            "vision_config.deepstack_visual_indexes": [1, 2],
        },
    ),
    "idefics3": replace(_IDEFICS, images="Idefics3ImageProcessorPil"),
    "smolvlm": replace(_IDEFICS, images="SmolVLMImageProcessorPil", processor="SmolVLMProcessor"),
    "paligemma": Recipe(
        images="SiglipImageProcessorPil",
        images_kwargs={"size": SQUARE, "image_seq_length": 16},
        processor="PaliGemmaProcessor",
        ids=_INDEX,
    ),
    "gemma3": Recipe(
        images="Gemma3ImageProcessorPil",
        images_kwargs={"size": SQUARE},
        processor="Gemma3Processor",
        processor_kwargs={"image_seq_length": 4},
        tokens={"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        prompt_image="<start_of_image>",
        config={"mm_tokens_per_image": 4},
        ids={
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
    ),
    "internvl": Recipe(
        images="GotOcr2ImageProcessorPil",
        images_kwargs={"size": SQUARE, "min_patches": 1, "max_patches": 2},
        processor="InternVLProcessor",
        processor_kwargs={"image_seq_length": 4},
        tokens={
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "video_token": "<video>",
        },
        prompt_image="<IMG_CONTEXT>",
        config={"image_seq_length": 4},
        ids={"image_token_id": "<IMG_CONTEXT>"},
    ),
    "mllama": Recipe(
        images="MllamaImageProcessorPil",
        images_kwargs={"size": SQUARE, "max_image_tiles": 4},
        processor="MllamaProcessor",
        tokens={"image_token": "<|image|>"},
        plain_tokens=("<|python_tag|>",),
        prompt_image="<|image|>",
        ids={"image_token_index": "<|image|>"},
    ),
    "blip-2": Recipe(
        images="BlipImageProcessorPil",
        images_kwargs={"size": SQUARE},
        processor="Blip2Processor",
        tokens={},  # the processor brings the image token itself and puts it before the prompt
        prompt_image="",
        processor_kwargs={"num_query_tokens": 4},
        ids=_INDEX,
    ),
    "aya_vision": Recipe(
        images="GotOcr2ImageProcessorPil",
        images_kwargs={"size": SQUARE, "min_patches": 1, "max_patches": 2},
        processor="AyaVisionProcessor",
        processor_kwargs={"patch_size": PATCH, "img_size": IMAGE, "downsample_factor": 2},
        plain_tokens=(
            "<|START_OF_IMG|>",
            "<|END_OF_IMG|>",
            "<|IMG_PATCH|>",
            "<|IMG_LINE_BREAK|>",
            "TILE",
            "TILE_GLOBAL",
        ),
        ids={"image_token_index": "<|IMG_PATCH|>"},
    ),
}
_TEXT_ONLY = dict.fromkeys((family for family in TEXT_ONLY if family != "olmo2"), Recipe(tokens={}, prompt_image=""))
RECIPES: dict[str, Recipe] = _VISION_LANGUAGE | _TEXT_ONLY | _VISION_TOWERS
CHECKPOINTS: tuple[str, ...] = tuple(RECIPES)


def _tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    special = list(dict.fromkeys((*named.values(), *recipe.tokens.values(), *recipe.plain_tokens)))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, **named, padding_side="left", model_specific_special_tokens=dict(recipe.tokens)
    )
    tokenizer.add_special_tokens({"extra_special_tokens": list(recipe.plain_tokens)})
    tokenizer.chat_template = TEMPLATE.replace("IMAGE", recipe.prompt_image)
    return tokenizer


def processor(family: str, recipe: Recipe) -> Any:
    """The family's processor, opened from the files that a repository would have."""
    with tempfile.TemporaryDirectory() as folder:
        return _processor(family, recipe, Path(folder))


def _processor(family: str, recipe: Recipe, folder: Path) -> Any:
    images = getattr(transformers, recipe.images)(**recipe.images_kwargs) if recipe.images else None
    if not recipe.processor:
        return images or _tokenizer(recipe)
    tokenizer = _tokenizer(recipe)
    tokenizer.save_pretrained(folder)
    settings = recipe.processor_kwargs | {"processor_class": recipe.processor, "image_processor": images.to_dict()}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template)
    hub = {"revision": None, "local_files_only": True, "trust_remote_code": False}
    return load_processor(str(folder), hub, _default(family) if family in CONFIG_MAPPING else recipe.base())


def _with_ids(config: PreTrainedConfig, ids: dict[str, Any]) -> None:
    for name, value in ids.items():
        if name in vars(config):
            setattr(config, name, value)
    for part in vars(config).values():
        if isinstance(part, PreTrainedConfig):
            _with_ids(part, ids)


@torch.no_grad()
def _randomise(model: PreTrainedModel, seed: int) -> None:
    """Weights that pass a signal of about unit size on, so that logits depend on every input; gates are opened."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=draw)
        if parameter.dim() < 2:
            parameter.add_(noise, alpha=0.1) if parameter.numel() > 1 else parameter.fill_(0.5)
        else:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)


def checkpoint(family: str, folder: Path, *, seed: int = 0) -> Path:
    """A folder with a tiny model of the family and its processor; what is there already for the seed is kept."""
    recipe, done = RECIPES[family], folder / "seed.txt"
    if done.exists() and done.read_text() == str(seed):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    processor = _processor(family, recipe, folder)
    base = recipe.base() if recipe.base else _default(family)
    config = _shrink(base, CORRECTIONS.get(family, {}) | recipe.config, LANGUAGE, VISION)
    tokenizer = processor if isinstance(processor, PreTrainedTokenizerFast) else getattr(processor, "tokenizer", None)
    if tokenizer is not None:
        ids: dict[str, Any] = {name: tokenizer.convert_tokens_to_ids(token) for name, token in recipe.ids.items()}
        ids |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        _with_ids(config, ids | {"vocab_size": max(VOCAB, len(tokenizer))})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _auto(config.model_type).from_config(config, dtype=torch.float32).eval()
    _randomise(model, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    done.write_text(str(seed))
    return folder
