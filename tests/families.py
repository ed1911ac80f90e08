"""What does a checkpoint of each family look like on the hub, at a size that a test can build?

A folder has the files of a published repository under their real names: `config.json`, safetensors, a tokenizer of the
family's class, and the processor's settings in one of the `FORMS` in which repositories ship them. Settings come from
the family's own image processor and shrunken configuration; what neither tells is one entry of `FAMILIES`.
"""

import inspect
import json
import re
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ImageProcessingMixin, PreTrainedConfig, PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

import tiny
from glasshouse.model.processors import _class_named, load_processor

FORMS = ("slow", "fast", "nested")
"""How repositories ship an image processor: by its first name, by that of its fast class, in the processor's file."""
HUB = {"revision": None, "local_files_only": True, "trust_remote_code": False}
IMAGE, PATCH = tiny.IMAGE, tiny.PATCH
SQUARE = tiny.SQUARE
PIXELS = {"shortest_edge": 16 * 16, "longest_edge": IMAGE * IMAGE}
SMALL = {
    "patch_size": PATCH, "image_size": IMAGE, "img_size": IMAGE, "size": SQUARE, "crop_size": SQUARE,
    "num_image_tokens": 16, "image_seq_length": 16, "image_seq_len": 16, "num_query_tokens": 4,
    "min_pixels": 256, "max_pixels": 1024,
    "image_grid_pinpoints": tiny.TILES, "max_image_size": {"longest_edge": IMAGE}, "max_patches": 2,
    "encoder_patch_size": PATCH,
}  # fmt: skip


VIDEOS = {"Qwen2_5_VLProcessor": "Qwen2VLVideoProcessor"}
"""Classes of video parts that the processor's name does not give."""
_TIMM = "its vision tower is a timm model, so install timm, and torchvision for your torch"
NOT_BUILT = dict.fromkeys(("fast_vlm", "gemma3n", "perception_lm"), _TIMM) | {
    "evolla": "reads proteins, not images",
    "instructblipvideo": "reads videos alone, which no example holds",
    "pi0": "steers a robot: its forward pass needs the robot's state, which no example holds",
}
"""Families that have no row to try here, and why."""
BESIDE = ("phi4_multimodal", *(name for name in tiny.VISION_ONLY if name != "deit"))
"""Families beside those that transformers maps as image-text-to-text."""


@dataclass(frozen=True)
class Family:
    """What the family's classes and configuration do not tell."""

    processor: str = ""
    images: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the image processor."""
    scalars: dict[str, Any] = field(default_factory=dict)
    """Of the processor."""
    tokens: dict[str, str] = field(default_factory=dict)
    plain: tuple[str, ...] = ()
    placeholder: str = ""
    """An image in the prompt; the processor's image token where it is empty."""
    template: bool = True
    tokenizer: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


def _known(name: str, **changes: Any) -> Family:
    """What `tiny` knows of a family."""
    recipe = tiny.RECIPES[name]
    known = Family(
        images=recipe.images.removesuffix("Pil"), processor=recipe.processor, settings=recipe.images_kwargs,
        scalars=recipe.processor_kwargs, tokens=recipe.tokens, plain=recipe.plain_tokens,
        placeholder=recipe.prompt_image, config=recipe.config, ids=recipe.ids,
    )  # fmt: skip
    return replace(known, **changes)


_ROPE = tiny._ROPE


def _sections(*sections: int, **more: Any) -> dict[str, Any]:
    return {"text_config.rope_parameters": _ROPE | {"mrope_section": list(sections)} | more}


_SOUNDS = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
_TILED = {"image_grid_pinpoints": tiny.TILES}
_GLM = Family(
    processor="Glm46VProcessor", images="Glm46VImageProcessor", config=_sections(2, 3, 3),
    placeholder="<|begin_of_image|><|image|><|end_of_image|>", plain=("<|begin_of_image|>", "<|end_of_image|>"),
)  # fmt: skip
_QWEN = "<|vision_start|><|image_pad|><|vision_end|>"
FAMILIES: dict[str, Family] = {
    "minimax_m3_vl": Family(plain=("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>[")),
    "kimi_k25": Family(config={"projection_hidden_size": tiny.VISION.width}),
    "muse_spark": Family(config={"out_hidden_size": 4 * tiny.VISION.width}),
    "muse_glimmer": Family(config={"out_hidden_size": 4 * tiny.VISION.width}),
    "molmo2": Family(settings={"overlap_margins": [1, 1], "max_crops": 2}),
    "mistral_large4": Family(scalars={"spatial_merge_size": 2}),
    "mistral3": Family(scalars={"spatial_merge_size": 2}),
    "llama4": Family(config={"vision_config.intermediate_size": 4 * tiny.VISION.width}),
    "aria": Family(
        scalars={"size_conversion": {"490": 4, "980": 4}},
        config={"projector_patch_to_query_dict": {"14884": 4, "3721": 4}},
    ),
    "blip-2": Family(
        processor="Blip2Processor",
        images="BlipImageProcessor",
        template=False,
        scalars={"num_query_tokens": 4},
        config=tiny.RECIPES["blip-2"].config,
        ids={"image_token_index": "<image>"},
    ),
    "instructblip": Family(template=False, ids={"image_token_index": "<image>"}),
    "blip": Family(template=False),
    "git": Family(template=False),
    "pix2struct": Family(
        template=False,
        config={"vision_config.patch_embed_hidden_size": 3 * PATCH * PATCH},
        settings={"patch_size": {"height": PATCH, "width": PATCH}, "max_patches": 16},
    ),
    "florence2": Family(template=False, settings={"image_seq_length": 16}),
    "cohere2_vision": Family(settings={"patch_size": 2}),
    "cosmos3_omni": Family(
        processor="Qwen3VLProcessor", images="Qwen2VLImageProcessor", placeholder=_QWEN, config=_sections(6, 5, 5)
    ),
    "glm_ocr": replace(_GLM, config=_sections(1, 1, 2)),
    "glm46v": _GLM,
    "glmga": replace(_GLM, images="GlmgaImageProcessor", config=_sections(1, 1, 2)),
    "glm4v": replace(_GLM, processor="Glm4vProcessor", images="Glm4vImageProcessor"),
    "glm4v_moe": replace(_GLM, processor="Glm4vProcessor", images="Glm4vImageProcessor", config=_sections(1, 1, 2)),
    "qwen3_vl_moe": _known("qwen3_vl", images="Qwen2VLImageProcessor"),
    "qwen2_5_omni_thinker": Family(
        processor="Qwen2_5OmniProcessor",
        images="Qwen2VLImageProcessor",
        plain=("<|vision_bos|>",),
        config={"vision_start_token_id": 500},
        ids={"vision_start_token_id": "<|vision_bos|>"},
    ),
    "qwen3_omni_moe_thinker": Family(
        processor="Qwen3OmniMoeProcessor",
        images="Qwen2VLImageProcessor",
        plain=("<|vision_bos|>",),
        config={"vision_start_token_id": 500},
        ids={"vision_start_token_id": "<|vision_bos|>"},
    ),
    "kosmos-2": Family(
        processor="Kosmos2Processor", images="CLIPImageProcessor", template=False, config={"latent_query_num": 64}
    ),
    "kosmos-2.5": Family(processor="Kosmos2_5Processor", images="Kosmos2_5ImageProcessor", template=False),
    "diffusion_gemma": Family(
        images="Gemma4ImageProcessor",
        tokens=_SOUNDS,
        config=tiny.CORRECTIONS["diffusion_gemma"] | {"vision_config.position_embedding_size": 1024},
    ),
    "gemma4": Family(tokens=_SOUNDS, config={"vision_config.position_embedding_size": 1024}),
    "gemma4_unified": Family(tokens=_SOUNDS),
    "granite4_vision": Family(settings=_TILED, images="LlavaNextImageProcessor", config=_TILED),
    "pp_chart2table": Family(
        placeholder="<img><imgpad></img>", ids={"image_token_id": "<imgpad>", "image_token_index": "<imgpad>"}
    ),
    "deepseek_vl_hybrid": Family(settings={"high_res_size": SQUARE}),
    "deepseek_ocr2": Family(settings={"tile_size": IMAGE}),
    "fuyu": Family(plain=("|SPEAKER|", "|NEWLINE|"), template=False),
    "granite_docling": Family(scalars={"image_seq_len": 1}),
    "hunyuan_vl": Family(placeholder="<image_start><image><image_end>"),
    "idefics2": Family(scalars={"image_seq_len": 2}),
    "llava_next_video": Family(settings=_TILED, config=_TILED, images="LlavaNextImageProcessor"),
    "minicpm_ocr": Family(settings={"max_slice_nums": 1, "scale_resolution": IMAGE, "slice_mode": False}),
    "paddleocr_vl": Family(config=_sections(4, 6, 6)),
    "qianfan_ocr": Family(placeholder="<image>", scalars={"image_seq_length": 4}),
    "ovis2": Family(ids={"image_token_id": "<IMG_ATOM>"}),
    "t5gemma2": _known("gemma3", config={"encoder.mm_tokens_per_image": 4}),
    "phi4_multimodal": Family(processor="Phi4MultimodalProcessor", images="Phi4MultimodalImageProcessor"),
}


def family(name: str) -> Family:
    """The entry of a family; those that `tiny` builds already lend what they know."""
    return FAMILIES.get(name) or (_known(name) if name in tiny.RECIPES else Family())


def processor_name(name: str) -> str:
    return family(name).processor or PROCESSOR_MAPPING_NAMES.get(name) or ""


def image_name(name: str) -> str:
    backends = IMAGE_PROCESSOR_MAPPING_NAMES.get(name, {})
    return family(name).images or backends.get("torchvision") or backends.get("pil") or ""


@cache
def image_class(name: str) -> Any:
    wanted = image_name(name)
    if hasattr(transformers, f"{wanted}Pil"):
        return getattr(transformers, f"{wanted}Pil")
    return _class_named(wanted, ImageProcessingMixin) if wanted else None


def image_settings(name: str) -> dict[str, Any]:
    """The image processor's settings, as its class would save them, at a small size."""
    found = image_class(name)
    if found is None:
        return {}
    defaults = {key: value for key, value in found().to_dict().items() if value is not None}
    merged = "merge_size" in defaults or "spatial_merge_size" in defaults
    small = {key: value for key, value in SMALL.items() if isinstance(defaults.get(key), type(value))}
    size = defaults.get("size")
    if merged and isinstance(size, dict) and "shortest_edge" in size:
        small["size"] = PIXELS
    elif isinstance(size, dict):
        small["size"] = dict.fromkeys(size, IMAGE)
    for key in ("patch_size",):
        if isinstance(defaults.get(key), dict):
            small[key] = dict.fromkeys(defaults[key], PATCH)
    for key in ("image_processor_type", "processor_class"):
        defaults.pop(key, None)
    return defaults | small | family(name).settings


def image_file(name: str, form: str) -> dict[str, Any]:
    """The settings with the name of the class, as a file of that form states them."""
    settings = image_settings(name)
    return (
        settings | {"image_processor_type": image_name(name) + ("Fast" if form == "fast" else "")} if settings else {}
    )


def literals(name: str) -> tuple[dict[str, str], list[str]]:
    """The special tokens that the processor's code asks the tokenizer for by name, and those that it writes out."""
    found = _class_named(processor_name(name), ProcessorMixin)
    text = inspect.getsource(sys.modules[found.__module__]) if found else ""
    written = sorted(set(re.findall(r"""["'](<[^"' \n{}\\]{1,40}>|\[[A-Z_]+\])["']""", text)))
    named: dict[str, str] = {}
    for attribute in sorted(set(re.findall(r"tokenizer\.(\w+_token)\b", text))):
        if attribute in (
            "pad_token",
            "eos_token",
            "bos_token",
            "unk_token",
            "sep_token",
            "add_bos_token",
            "add_eos_token",
        ):
            continue
        if not re.search(rf"""(hasattr|getattr)\((self\.)?tokenizer, "{attribute}\"""", text):
            named[attribute] = f"<{attribute.removesuffix('_token')}>"
    return named, written


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A small tokenizer with the special tokens of the family."""
    own = family(name)
    named, written = literals(name) if processor_name(name) else ({}, [])
    named |= own.tokens
    kind = own.tokenizer or TOKENIZER_MAPPING_NAMES.get(name) or "PreTrainedTokenizerFast"
    kind = "PreTrainedTokenizerFast" if kind == "TokenizersBackend" else kind
    basic = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if "Bert" in kind:
        basic = {
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "unk_token": "[UNK]",
            "mask_token": "[MASK]",
        }
    plain = [token for token in dict.fromkeys((*own.plain, *written)) if token not in named.values()]
    special = list(dict.fromkeys((*basic.values(), *named.values(), *plain)))
    core, trainer = _core(kind, special)
    core.train_from_iterator(tiny.CORPUS, trainer)
    built = PreTrainedTokenizerFast(
        tokenizer_object=core, **basic, padding_side="left", model_specific_special_tokens=named
    )
    extra = [token for token in plain if token not in basic.values()]
    built.add_special_tokens({"extra_special_tokens": extra})
    return built


def _core(kind: str, special: list[str]) -> tuple[Tokenizer, Any]:
    """The rules of the family's kind of tokenizer: bytes, pieces of a sentence, or words."""
    if "Bert" in kind:
        core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece()
        return core, trainers.WordPieceTrainer(vocab_size=320, special_tokens=special)
    if kind.startswith(("Udop", "T5")):
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        return core, trainers.UnigramTrainer(vocab_size=320, special_tokens=special, unk_token="<unk>")
    if kind.startswith(("Llama", "Gemma")):
        pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
        core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        core.normalizer = normalizers.Replace(" ", "▁")
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        return core, trainers.BpeTrainer(vocab_size=420, special_tokens=pieces)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return core, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)


def scalars(name: str) -> dict[str, Any]:
    """The processor's own settings, at a small size."""
    found = _class_named(processor_name(name), ProcessorMixin)
    accepted = inspect.signature(found.__init__).parameters
    return {key: value for key, value in SMALL.items() if key in accepted and key not in ("size",)} | family(
        name
    ).scalars


def write_processor(name: str, folder: Path, form: str) -> None:
    """Tokenizer and processor files under their real class names, as a repository of that form has them."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in tiny.VISION_ONLY:
        _write(folder / "preprocessor_config.json", image_file(name, form))
        return
    tokenizer(name).save_pretrained(folder)
    kind = family(name).tokenizer or TOKENIZER_MAPPING_NAMES.get(name) or "PreTrainedTokenizerFast"
    _update(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast" if kind == "TokenizersBackend" else kind},
    )
    composed = processor_name(name)
    stated = {"processor_class": composed} if composed else {}
    images = image_file(name, form)
    found = _class_named(composed, ProcessorMixin) if composed else None
    filmed = found is not None and "video_processor" in found.get_attributes()
    videos = images | {"video_processor_type": VIDEOS.get(composed, composed.replace("Processor", "VideoProcessor"))}
    videos = videos if filmed else {}
    videos.pop("image_processor_type", None)
    own = scalars(name) if composed else {}
    if form == "nested" and composed:
        parts = {"image_processor": images, "video_processor": videos} if videos else {"image_processor": images}
        _write(folder / "processor_config.json", {**own, **parts, **stated})
    else:
        _write(folder / "preprocessor_config.json", {**images, **stated})
        if own:
            _write(folder / "processor_config.json", {**own, **stated})
        if videos:
            _write(folder / "video_preprocessor_config.json", {**videos, **stated})
    if composed == "InstructBlipProcessor":  # the Q-Former reads the prompt too
        second = folder / "qformer_tokenizer"
        tokenizer("blip").save_pretrained(second)
        _update(second / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    if composed and family(name).template:
        placeholder = family(name).placeholder
        token = placeholder or str(getattr(load_processor(str(folder), HUB, small(name)), "image_token", "") or "")
        template = tiny.TEMPLATE.replace("IMAGE", token)
        if form == "slow":
            _write(folder / "chat_template.json", {"chat_template": template})
        else:
            (folder / "chat_template.jinja").write_text(template)


def reopened(name: str, folder: Path, form: str) -> Any:
    """The processor from files of that form."""
    if not folder.is_dir():
        write_processor(name, folder, form)
    return load_processor(str(folder), HUB, small(name))


def small(name: str) -> PreTrainedConfig:
    """The family's configuration, shrunken."""
    return tiny.shrunken(name, corrections=family(name).config)


def checkpoint(name: str, folder: Path, form: str = "slow") -> Path:
    """The folder of a tiny random model of the family, with its files as they are published."""
    write_processor(name, folder, form)
    config = small(name)
    processor = load_processor(str(folder), HUB, config)
    words = getattr(processor, "tokenizer", processor)
    if hasattr(words, "pad_token"):
        ids: dict[str, Any] = {field: words.convert_tokens_to_ids(token) for field, token in family(name).ids.items()}
        ids |= {f"{each}_token_id": getattr(words, f"{each}_token_id", None) for each in ("pad", "bos", "eos")}
        align(config, processor, words, {key: value for key, value in ids.items() if value is not None})
        tiny._with_ids(config, {"vocab_size": max(tiny.VOCAB, len(words))})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny._auto(config.model_type).from_config(config, dtype=torch.float32).eval()
    tiny._randomise(model, 0)
    model.save_pretrained(folder)
    return folder


def align(config: PreTrainedConfig, processor: Any, words: Any, ids: dict[str, Any]) -> None:
    """Give the configuration the ids of the tokens that the processor writes."""
    for key, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            align(value, processor, words, ids)
            continue
        stem = re.sub(r"_(token_)?(id|index)$", "", key)
        if key in ids:
            setattr(config, key, ids[key])
        elif stem != key and (isinstance(value, int) or value is None):
            for owner in (processor, words):
                token = getattr(owner, f"{stem}_token", None) or getattr(owner, stem, None)
                if isinstance(token, str) and token in words.get_vocab():
                    setattr(config, key, words.convert_tokens_to_ids(token))
                    break


def _write(file: Path, settings: dict[str, Any]) -> None:
    file.write_text(json.dumps(settings, indent=2))


def _update(file: Path, settings: dict[str, Any]) -> None:
    _write(file, json.loads(file.read_text()) | settings)
