"""What does an untrained model look like? The seedling: a LLaVA of stock classes with seeded random weights.

Nothing was learnt and nothing was planted, so whatever a method claims to find in it is a false alarm. It is built from
its configuration, tokenizer and processor included, and needs no file and no network.
"""

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from glasshouse.data.examples import Example, Examples, Tag
from glasshouse.data.images import StoredImage
from glasshouse.numerics.randomness import seeded

COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 119, 180),
    "yellow": (240, 200, 30),
    "purple": (148, 103, 189),
    "orange": (255, 127, 14),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "user:", "assistant:")
WORDS = ("what", "colour", "is", "the", "square", "in", "this", "image", "a", "no", "yes", "and", "?", ".", *COLOURS)
IMAGE_SIZE, PATCH = 64, 8
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %} {% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def model(seed: int = 0) -> LlavaForConditionalGeneration:
    """Six layers in each tower, grouped-query attention, a two-layer projector, features from the layer before the
    last."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=96, intermediate_size=192, num_hidden_layers=6, num_attention_heads=4,
            image_size=IMAGE_SIZE, patch_size=PATCH, projection_dim=96,
        ),
        text_config=LlamaConfig(
            vocab_size=len(SPECIAL) + len(WORDS), hidden_size=128, intermediate_size=256, num_hidden_layers=6,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        ),
        image_token_index=SPECIAL.index("<image>"), vision_feature_layer=-2, vision_feature_select_strategy="default",
        image_seq_length=(IMAGE_SIZE // PATCH) ** 2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers initialises from the global state, which fork_rng restores
        return LlavaForConditionalGeneration(config).eval()


def processor() -> LlavaProcessor:
    """One token for each word, and CLIP's image processing on the PIL backend."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>", "user:", "assistant:"],
    )  # fmt: skip
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False),
        tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip


def examples(n: int = 16, seed: int = 0) -> Examples:
    """A coloured square on grey and the question what colour it is; `box` tags give its place."""
    generator = seeded(seed)
    return Examples((_square(number, generator) for number in range(n)), source="organism:seedling")


def _square(number: int, generator: torch.Generator) -> Example:
    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    colour = list(COLOURS)[number % len(COLOURS)]
    side, shade = draw(16, 28), draw(110, 150)
    left, top = draw(0, IMAGE_SIZE - side), draw(0, IMAGE_SIZE - side)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (shade, shade, shade))
    ImageDraw.Draw(image).rectangle((left, top, left + side - 1, top + side - 1), fill=COLOURS[colour])
    box = (edge / IMAGE_SIZE for edge in (left, top, left + side, top + side))
    tags: dict[str, Tag] = dict(zip(("box_left", "box_top", "box_right", "box_bottom"), box, strict=True))
    return Example(
        "what colour is the square ?", (StoredImage.png(image),), answer=colour, id=f"square-{number}", tags=tags
    )
