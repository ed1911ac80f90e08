"""What will be opened? A model from its configuration and the headers of its files, before any weight is read.

outline = outlined("path/or/name", dtype=torch.bfloat16)
outline.footprint.weights                   bytes that its weights will take
outline.length(examples)                    how long such examples are inside it
"""

import json
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from glasshouse.data.examples import Example
from glasshouse.data.network import offline
from glasshouse.data.strangers import strangers_files
from glasshouse.model.configs import FIX, on_meta, read_config
from glasshouse.model.finder import find_anatomy
from glasshouse.model.footprint import Footprint, Length
from glasshouse.model.processors import load_processor
from glasshouse.model.prompts import Prompts
from glasshouse.model.quantisation import UNPACKED, quantisation

TRIED = 4
"""Examples that are encoded to see how long they are."""
USUAL = Length(tokens=1024, patches=1024)
"""Where no example can be encoded yet."""
PREFIX, UPDATE = "base_model.model.", re.compile(r"\.(?:lora_|modules_to_save|token_adapter|base_layer|weight$|bias$)")
"""Before and behind the name of a module in an adapter's file."""
TAIL = 4
"""Last words of that name by which the module is known; earlier ones changed between versions of transformers."""
HEADERS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""How safetensors files name the types of weights."""


@dataclass(frozen=True)
class Outline:
    """A model that is not opened yet."""

    name: str
    footprint: Footprint
    dtype: torch.dtype
    prompts: Prompts
    config: PreTrainedConfig
    merged: int = 0
    """Bytes of the weights that an adapter changes; the base keeps its own beside them."""

    @property
    def weights(self) -> int:
        """Bytes of all that is read and merged."""
        return self.footprint.weights + self.merged

    def length(self, examples: Sequence[Example]) -> Length:
        """The longest of some examples inside this model, each encoded as it will be; refused like there."""
        step = max(1, len(examples) // TRIED)
        encoded = [self.prompts.encode([example], answers=True) for example in examples[::step][:TRIED]]
        found = [Length.of(each, self.footprint.anatomy, self.config) for each in encoded]
        return max(found, key=lambda each: (each.tokens, each.patches), default=USUAL)


def outlined(
    name: str, *, adapter: str | None = None, revision: str | None = None, dtype: torch.dtype | str = "auto",
    download: bool = False, remote_code: bool = False, max_pixels: int | None = None,
) -> Outline:  # fmt: skip
    """The outline of a folder or a hub name, and of an adapter on it."""
    hub: dict[str, Any] = {
        "revision": revision, "local_files_only": not download, "trust_remote_code": remote_code,
    }  # fmt: skip
    with offline(download=download), strangers_files(name, "its outline cannot be drawn", FIX):
        config = read_config(name, **hub)
        model = on_meta(name, config)
        processor, kind = load_processor(name, hub, config), opened_dtype(name, config, dtype)
        outline = of_model(name, model, processor, kind, max_pixels)
        if adapter is None:
            return outline
        return replace(outline, merged=_merged_weights(model, Path(adapter)) * outline.dtype.itemsize)


def of_model(
    name: str, model: PreTrainedModel, processor: Any, dtype: torch.dtype, max_pixels: int | None = None
) -> Outline:
    """The outline of a model that is built, on the meta device or in memory."""
    anatomy = find_anatomy(model)
    scheme = quantisation(model.config)
    packed = _stored_bytes(Path(name)) if scheme is not None and scheme.method not in UNPACKED else None
    footprint = Footprint.of(model, anatomy, dtype, packed)
    return Outline(name, footprint, dtype, Prompts(processor, anatomy, model.config, max_pixels), model.config)


def opened_dtype(name: str, config: PreTrainedConfig, dtype: torch.dtype | str) -> torch.dtype:
    """In which type transformers opens the weights: the one that is asked for, that the configuration names, or of the
    first file's first weights."""
    named: Any = dtype if dtype != "auto" else getattr(config, "dtype", None)
    named = getattr(torch, named, None) if isinstance(named, str) else named
    return named if isinstance(named, torch.dtype) else _stored_dtype(Path(name)) or torch.get_default_dtype()


def _merged_weights(model: PreTrainedModel, adapter: Path) -> int:
    """How many weights merging an adapter copies: those of the modules that its files name; all of them where the files
    name none of this model's."""
    entries = (name for file in adapter.glob("*.safetensors") for name in _header(file))
    modules = {tuple(UPDATE.split(name)[0].removeprefix(PREFIX).split(".")[-TAIL:]) for name in entries}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    copied = sum(size for name, size in sizes.items() if not modules.isdisjoint(_runs_of_words(name)))
    return copied or sum(sizes.values())


def _runs_of_words(name: str) -> Iterator[tuple[str, ...]]:
    """Up to TAIL neighbouring words of the module that a weight belongs to: looked up in a set, because an adapter's
    file may name a million modules."""
    *words, _ = name.split(".")
    return (tuple(words[start:end]) for start in range(len(words))
            for end in range(start + 1, min(start + TAIL, len(words)) + 1))  # fmt: skip


def _stored_dtype(folder: Path) -> torch.dtype | None:
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        for entry in _header(file).values():
            if isinstance(entry, dict) and entry.get("dtype") in HEADERS:
                return HEADERS[entry["dtype"]]
    return None


def _stored_bytes(folder: Path) -> int | None:
    files = list(folder.glob("*.safetensors")) if folder.is_dir() else []
    return sum(file.stat().st_size for file in files) or None


def _header(file: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors; nothing where it is broken, which opening it will tell."""
    with suppress(OSError, ValueError, struct.error), file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length <= 2**27:
            header = json.loads(stream.read(length))
            return header if isinstance(header, dict) else {}
    return {}
