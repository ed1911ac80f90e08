"""What does a stranger's configuration ask for, and can it be built? Judged on its text first, then without memory.

A configuration is a program's input: one large number makes a library count to it before anything is allocated.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from glasshouse.data.hub import check_reachable
from glasshouse.data.strangers import strangers_files
from glasshouse.values.errors import BadInput

NUMBERS: tuple[tuple[re.Pattern[str], range], ...] = (
    (re.compile(r"(layers?|depths?|blocks|stages)$"), range(1001)),
    (re.compile(r"(experts|labels)$"), range(30_001)),
    (re.compile(r"(image_tokens|seq_len|seq_length|queries|query_tokens)$"), range(1_000_001)),
    (re.compile(r"^(height|width)$"), range(16_385)),
    (re.compile(""), range(-(2**40), 2**40)),
)
"""What the numbers of a configuration can be, by the ends of their names; the first rule that fits holds. They are
wide: nothing is refused that any published model has."""
FEATURE_LAYERS = re.compile(r"feature_layers?$|select_layers?$|vision_layer$")
"""These name layers and count from the end too."""
CODE = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")
"""Entries that can name compiled code on the hub."""
DEEPEST = 30
MOST_MODULES = 60_000
"""Several times as many as the largest models have."""
FIX = "compare the file with the original"


def read_config(
    source: str, *, revision: str | None, local_files_only: bool, trust_remote_code: bool
) -> PreTrainedConfig:
    """The configuration of a folder or a hub name, with the options that transformers calls so."""
    hub: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    with strangers_files(source, "its configuration cannot be read", FIX):
        try:
            raw, _ = PreTrainedConfig.get_config_dict(source, **hub)
        except OSError:
            if Path(source).exists():
                raise
            if not local_files_only:
                check_reachable(source, revision)
                raise
            raise BadInput(
                f"{source}: neither a folder nor in the local cache; to fetch it from the hub add --download"
            ) from None
        check_entries(source, raw)
        try:
            return AutoConfig.from_pretrained(source, **hub, trust_remote_code=trust_remote_code)
        except ValueError as problem:
            if trust_remote_code or "trust_remote_code" not in str(problem):
                raise
            raise BadInput(
                f"{source}: needs code from its repository, which is not run unless you say so: --remote-code"
            ) from None


def check_entries(file: str, value: Any, name: str = "", depth: int = 0) -> None:
    """Refuse numbers that no model has, and names of code, wherever they stand in a configuration."""
    field = name.rsplit(".", 1)[-1]
    if depth > DEEPEST:
        raise BadInput(f"{file}: nested more than {DEEPEST} levels deep; {FIX}")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_entries(file, inner, f"{name}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_entries(file, inner, name, depth + 1)
    elif isinstance(value, int) and not FEATURE_LAYERS.search(field):
        possible = next(numbers for names, numbers in NUMBERS if names.search(field))
        if value not in possible:
            raise BadInput(f"{file}: {name} is {value}, outside {possible.start} to {possible.stop - 1:,}; {FIX}")
    elif isinstance(value, str) and "/" in value and any(part in CODE for part in name.split(".")):
        raise BadInput(f"{file}: {name} is {value}, code from the hub, which is never run; remove the entry")


def auto_class(config: PreTrainedConfig) -> Any:
    """The transformers class that opens this kind of model."""
    if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForCausalLM
    return AutoModel


def start_token(config: PreTrainedConfig) -> int:
    """The token with which an encoder-decoder begins its answer."""
    for name in ("decoder_start_token_id", "bos_token_id"):
        for owner in (config.get_text_config(decoder=True), config):
            token = getattr(owner, name, None)
            if isinstance(token, int):
                return token
    raise BadInput(f"{config.model_type}: its configuration names no token to start decoding with")


def on_meta(source: str, config: PreTrainedConfig) -> PreTrainedModel:
    """The model without weights, for its anatomy and its size."""
    problem = f"a {config.model_type} cannot be built from its configuration"
    with strangers_files(source, problem, FIX), torch.device("meta"), _at_most(MOST_MODULES):
        return auto_class(config).from_config(config)


@contextmanager
def _at_most(limit: int) -> Iterator[None]:
    """Stop this thread when it has built that many modules."""
    builder, built = threading.get_ident(), 0

    def count(parent: nn.Module, name: str, module: nn.Module | None) -> None:
        nonlocal built
        built += threading.get_ident() == builder
        if built > limit:
            raise ValueError(f"it has more than {limit:,} modules")

    counting = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        counting.remove()
