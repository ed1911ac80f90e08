"""Who is this model? Hashes of all that decides what it says, in an Identity that travels with every run.

The same checkpoint has the same hashes wherever it lies and however it is split into files.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig

from glasshouse.model.sharing import Marks, marks
from glasshouse.values.codec import tensor_bytes

S = TypeVar("S")


@dataclass(frozen=True)
class Identity:
    """Who this model is. Travels with every run."""

    name: str
    family: str
    architecture: str
    weights: str
    """SHA-256 over names, types, shapes and bytes of all weights, however they are split into files."""
    config: str
    """SHA-256 of the configuration, which decides what the weights compute."""
    processor: str
    """SHA-256 of tokenizer, chat template and image processing, which decide what the model is shown."""
    generation: str
    """SHA-256 of the generation settings, which decide how answers are decoded."""
    parameters: int
    dtype: str
    revision: str | None = None
    adapter: str | None = None
    """Folder of the adapter whose updates are in the weights."""
    adapter_weights: str | None = None
    """SHA-256 of that adapter's settings and weights."""
    base: str | None = None
    """Name of the model it was merged into."""
    base_weights: str | None = None
    """SHA-256 of that model's weights."""
    max_pixels: int | None = None
    """The most pixels of an image that it was shown; None for images as they are."""


UNHASHED = "not hashed"


def weight_hash(model: nn.Module, own: Mapping[int, Tensor] | None = None) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights and buffers, in order of name. `own` holds, by
    identity of the parameter, the model's own tensors where a patch has put others in their place."""
    running = hashlib.sha256()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        tensor = (own or {}).get(id(tensor), tensor)
        if not isinstance(tensor, Tensor) or tensor.is_meta:
            return f"{UNHASHED}: some weights are offloaded"
        running.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        running.update(tensor_bytes(tensor))
    return running.hexdigest()


def weight_checksum(model: nn.Module, own: Mapping[int, Tensor] | None = None) -> str:
    """A sum over the bits of all weights, several times as quick as their hash: other for any one value that changed.
    It is no proof against an adversary, who has no part in this process."""
    sums: list[int] = []
    for _, tensor in sorted(model.state_dict(keep_vars=True).items()):
        tensor = (own or {}).get(id(tensor), tensor)
        if isinstance(tensor, Tensor) and not tensor.is_meta and tensor.numel():
            bits = tensor.detach().contiguous().view(_BITS.get(tensor.element_size(), torch.uint8))
            rows = bits.reshape(len(bits) if bits.ndim else 1, -1).sum(1, dtype=torch.int64)
            sums += [int(rows.sum()), int((rows * torch.arange(1, len(rows) + 1, device=rows.device)).sum())]
    return hashlib.sha256(repr(sums).encode()).hexdigest()


@dataclass(frozen=True)
class WeightHashes:
    """What was hashed when the weights were last read, and where they lay then."""

    marks: Marks
    checksum: str
    weights: str
    processor: str
    parameters: int

    @classmethod
    def of(
        cls, model: nn.Module, own: Mapping[int, Tensor], processor: Callable[[], str], last: "WeightHashes | None"
    ) -> "WeightHashes":
        """The last hashes where no weight was replaced or written to since, else new ones."""
        weights = [value for value in model.state_dict(keep_vars=True).values() if isinstance(value, Tensor)]
        now = marks(own.get(id(weight), weight) for weight in weights)
        if last is not None and last.marks == now:
            return last
        count = sum(parameter.numel() for parameter in model.parameters())
        return cls(now, weight_checksum(model, own), weight_hash(model, own), processor(), count)


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_BESIDE = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")
"""Entries of a configuration that say where it lay, who wrote it, in which class and how weights are stored: the
Identity has its own fields for these, and saving a model sets some of them."""


def config_text(config: PreTrainedConfig) -> str:
    """All that a configuration says of what weights compute, as JSON."""
    return json.dumps(_essential(json.loads(config.to_json_string(use_diff=False))), sort_keys=True)


def config_hash(config: PreTrainedConfig) -> str:
    """SHA-256 of `config_text`."""
    return hashlib.sha256(config_text(config).encode("utf-8", "surrogatepass")).hexdigest()


def generation_hash(settings: GenerationConfig | None) -> str:
    """SHA-256 of how answers are decoded, without the version that wrote it and settings that are not set."""
    entries = {} if settings is None else settings.to_dict()
    kept = {name: value for name, value in entries.items() if value is not None and not name.startswith("_")}
    kept.pop("transformers_version", None)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


class SettingsHash(Generic[S]):
    """The hash of an object that holds settings. Settings that equal those of the last call are not hashed again."""

    def __init__(self, compute: Callable[[S], str]) -> None:
        self._compute = compute
        self._last: tuple[S, str] | None = None

    def __call__(self, settings: S) -> str:
        if self._last is None or _entries(self._last[0]) != _entries(settings):
            self._last = copy.deepcopy(settings), self._compute(settings)
        return self._last[1]


def _entries(settings: object) -> object:
    return type(settings), getattr(settings, "__dict__", None)


def _essential(tree: Any) -> Any:
    if isinstance(tree, dict):
        entries = cast(dict[str, Any], tree)
        return {name: _essential(value) for name, value in entries.items() if name not in _BESIDE}
    return [_essential(entry) for entry in cast(list[Any], tree)] if isinstance(tree, list) else tree
