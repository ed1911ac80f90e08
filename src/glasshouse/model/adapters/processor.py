"""What is a model with an adapter shown? What the adapter's folder says, and for the rest what its base is shown.

Adapters are often saved with a tokenizer and a chat template, or with a whole processor, and whoever uses the adapter
loads them with it. They are therefore part of what is audited, and their differences from the base's are listed with
those of the weights.
"""

import copy
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from glasshouse.data.strangers import strangers_files
from glasshouse.model.processors import IMAGES, PROCESSOR, TOKENIZER, load_processor
from glasshouse.values.errors import BadInput

FIX = "download the adapter again, or remove its tokenizer and processor files to use the base's"
TEMPLATE = "chat_template.jinja"
LOCAL = {"revision": None, "local_files_only": True, "trust_remote_code": False}
"""No network, and no code of the folder; unless it is refused, transformers asks on the terminal whether to run it."""


def adapted_processor(folder: Path, processor: Any, config: PreTrainedConfig) -> Any:
    """The base's processor with the parts that the adapter's folder holds."""
    if processor is None:
        return None
    own = getattr(processor, "tokenizer", processor)
    if any((folder / name).is_file() for name in (PROCESSOR, IMAGES)):
        whole = load_processor(str(folder), LOCAL, config)
        return _checked(folder, whole, getattr(whole, "tokenizer", whole), own)
    result = copy.deepcopy(processor)
    with strangers_files(folder, "its tokenizer or chat template cannot be loaded", FIX):
        if (folder / TOKENIZER).is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
            if isinstance(processor, PreTrainedTokenizerBase):
                return _checked(folder, tokenizer, tokenizer, own)
            result.tokenizer = tokenizer
            result.chat_template = tokenizer.chat_template or result.chat_template
        if (folder / TEMPLATE).is_file():
            result.chat_template = (folder / TEMPLATE).read_text("utf-8")
    return _checked(folder, result, getattr(result, "tokenizer", result), own)


def _checked(folder: Path, processor: Any, tokenizer: Any, own: Any) -> Any:
    """Refuse more tokens than the base has embeddings for."""
    sized = isinstance(tokenizer, PreTrainedTokenizerBase) and isinstance(own, PreTrainedTokenizerBase)
    if sized and len(tokenizer) > len(own):
        raise BadInput(
            f"{folder}: its tokenizer has {len(tokenizer):,} tokens and its base's {len(own):,}; extend the base's "
            "vocabulary first and give that: --base FOLDER"
        )
    return processor
