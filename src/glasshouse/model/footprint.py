"""How much memory does a model take, and how many operations does one example cost it? Counted from its outline.

    footprint = Footprint.of(on_meta(name, config), anatomy, torch.bfloat16)    # no weight is read
    footprint.weights                                     bytes of all weights
    footprint.working(length, gradients=False)            bytes that one example takes in a forward pass
    footprint.operations(length)                          floating-point operations of that pass

Parameters and weights are exact. The working memory follows from the widths of the largest layer: how many values per
token are alive at the same time was measured on Llama and CLIP layers and is a constant here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from glasshouse.model.anatomy import Anatomy, Tower
from glasshouse.model.differences import part_in, paths_of_parts
from glasshouse.model.finder import unwrapped
from glasshouse.model.prompts import Encoded

PARTS = ("vision", "projector", "language", "elsewhere")
TOGETHER = {"embeddings": "language", "head": "language"}
ALIVE_WIDTHS, ALIVE_NEURONS = 8, 3
"""Values per token that one layer holds at once: residual, its float32 norm, queries, keys, values and their product;
gate, up and their product."""
KEPT_WIDTHS, KEPT_NEURONS = 10, 3
"""Values per token that autograd keeps of each layer."""


@dataclass(frozen=True)
class Length:
    """How long one example is inside the model."""

    tokens: int
    """Of the prompt with its images and its answer."""
    patches: int = 0
    """Tokens of the vision tower, all images together."""

    @classmethod
    def of(cls, encoded: Encoded, anatomy: Anatomy, config: Any) -> "Length":
        """Of the longest example in a batch."""
        rows, ids, pixels = len(encoded.layout.answers), *map(encoded.inputs.get, ("input_ids", "pixel_values"))
        tokens = ids.shape[1] if isinstance(ids, Tensor) else 0
        if not isinstance(pixels, Tensor) or anatomy.vision is None:
            return cls(tokens)
        vision = getattr(config, "vision_config", config)
        patch = getattr(vision, "patch_size", None) or 1
        high, wide = patch if isinstance(patch, list | tuple) else (patch, patch)
        squares = pixels.shape[-1] // wide * (pixels.shape[-2] // high) if pixels.ndim >= 4 else pixels.shape[-2]
        images = pixels.shape[:-3] if pixels.ndim >= 4 else pixels.shape[:-2]
        return cls(tokens, -(-images.numel() * squares // rows))


@dataclass(frozen=True)
class Footprint:
    """What one model takes."""

    parameters: Mapping[str, int]
    """By part of the anatomy, `elsewhere` for what belongs to none; embeddings and head count as language."""
    weights: int
    """Bytes of all weights and buffers."""
    itemsize: int
    """Bytes of one value."""
    anatomy: Anatomy
    vocabulary: int
    """Numbers in one row of logits."""
    multiplied: Mapping[str, int]
    """By part, how many parameters one token is multiplied with."""
    neurons: Mapping[str, int]
    """By tower, the widest MLP of any layer, experts that one token passes taken together."""

    @classmethod
    def of(cls, model: PreTrainedModel, anatomy: Anatomy, dtype: torch.dtype, packed: int | None = None) -> "Footprint":
        """Of an outline on the meta device or of a model that is loaded. `packed`: bytes of its quantised weights."""
        base = unwrapped(model)
        named = list(base.named_parameters())
        counts: dict[str, int] = {}
        multiplied: dict[str, int] = {}
        lookup, unembedding = _lookup_table(base), anatomy.language.unembedding if anatomy.language else None
        paths = paths_of_parts(base, anatomy)
        for name, parameter in named:
            part = TOGETHER.get(found := part_in(paths, name), found)
            counts[part] = counts.get(part, 0) + parameter.numel()
            if parameter.ndim > 1 and parameter is not lookup:
                used = parameter.numel() * _used_share(name, base.config)
                multiplied[part] = multiplied.get(part, 0) + round(used)
        vocabulary = 0
        if unembedding is not None:
            head: Any = getattr(base.get_submodule(unembedding), "weight", None)
            vocabulary = head.shape[0] if isinstance(head, Tensor) else 0
            if head is lookup and isinstance(head, Tensor):  # tied: looked up at the start, multiplied with at the end
                multiplied["language"] = multiplied.get("language", 0) + head.numel()
        values = (*(parameter for _, parameter in named), *base.buffers())
        weights = sum(each.numel() * (dtype.itemsize if each.is_floating_point() else each.element_size())
                      for each in values)  # fmt: skip
        ordered = {part: counts[part] for part in PARTS if part in counts}
        neurons = {part: _neurons(tower) for part, tower in _towers(anatomy)}
        return cls(ordered, packed or weights, dtype.itemsize, anatomy, vocabulary, multiplied, neurons)

    def working(self, length: Length, *, gradients: bool) -> int:
        """Bytes that one example takes beside the weights, at the worst moment of a pass."""
        alive = [self._alive(part, tower, length) for part, tower in _towers(self.anatomy)]
        logits = length.tokens * self.vocabulary * self.itemsize
        if not gradients:
            return max([*alive, logits], default=0) + self._kept_features(length)
        kept = sum(self._kept(part, tower, length) for part, tower in _towers(self.anatomy))
        return kept + 2 * logits + max(alive, default=0)

    def operations(self, length: Length) -> float:
        """Floating-point operations of a forward pass of one example: two for each parameter a token is multiplied
        with, and those of attention."""
        tokens = {"vision": length.patches, "projector": length.patches}
        linear = sum(2.0 * count * tokens.get(part, length.tokens) for part, count in self.multiplied.items())
        return linear + sum(4.0 * len(tower.layers) * tower.width * tokens.get(part, length.tokens) ** 2
                            for part, tower in _towers(self.anatomy))  # fmt: skip

    def _alive(self, part: str, tower: Tower, length: Length) -> int:
        tokens = length.patches if part == "vision" else length.tokens
        return tokens * self.itemsize * (ALIVE_WIDTHS * tower.width + ALIVE_NEURONS * self.neurons[part])

    def _kept(self, part: str, tower: Tower, length: Length) -> int:
        tokens = length.patches if part == "vision" else length.tokens
        layer = KEPT_WIDTHS * tower.width + KEPT_NEURONS * self.neurons[part]
        return tokens * self.itemsize * layer * len(tower.layers)

    def _kept_features(self, length: Length) -> int:
        """transformers keeps the residual of every vision layer, to choose among them."""
        tower = self.anatomy.vision
        return 0 if tower is None else length.patches * self.itemsize * tower.width * (len(tower.layers) + 1)


def _towers(anatomy: Anatomy) -> Iterator[tuple[str, Tower]]:
    if anatomy.vision is not None:
        yield "vision", anatomy.vision
    if anatomy.language is not None:
        yield "language", anatomy.language


def _lookup_table(model: PreTrainedModel) -> Tensor | None:
    """The input embeddings: rows of them are looked up, none is multiplied with."""
    try:
        return getattr(model.get_input_embeddings(), "weight", None)
    except (NotImplementedError, AttributeError):  # a model that reads no tokens
        return None


def _used_share(name: str, config: Any) -> float:
    """Which fraction of a weight one token meets: of experts, those it is sent to."""
    text = config.get_text_config()
    counts = (getattr(text, field, None) for field in ("num_experts", "num_local_experts", "n_routed_experts"))
    experts = next((count for count in counts if isinstance(count, int) and count > 1), None)
    chosen = getattr(text, "num_experts_per_tok", None)
    if experts is None or not isinstance(chosen, int) or "expert" not in name or "shared" in name:
        return 1.0
    return min(1.0, chosen / experts)


def _neurons(tower: Tower) -> int:
    return max((layer.neurons or 4 * tower.width for layer in tower.layers), default=0)
