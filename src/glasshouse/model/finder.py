"""How is a model's anatomy found without knowing its name? By structure; what structure cannot tell is a line of
data.

1. The towers: `get_decoder()` and `get_encoder("image")`, the look-ups transformers itself keeps.
2. Blocks: in a tower, the shallowest ModuleList as long as the configured depth whose members hold attention or an
   MLP.
3. In a block, the two writers to the residual stream (`layers.py`).
4. The projector: what the model holds besides the two towers, or else the vision tower's tail, whose width is the
   language's.
5. `overrides.toml` names, per family, what the rules above cannot tell.

Works on the meta device: nothing is computed. A LoRA layer counts as the layer it wraps.
"""

import re
import tomllib
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from glasshouse.model.anatomy import Anatomy, Projector, Tower
from glasshouse.model.layers import breadth_first, holds_linear, is_mixer, linear_layers, linear_sizes, read_layer

DEPTHS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "depth",
    "decoder_layers",
    "encoder_layers",
    "layers",
)
WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "width", "embed_dims")
FINAL_NORMS = (
    *("norm", "ln_f", "norm_f", "final_norm", "final_layernorm", "final_layer_norm", "post_layernorm", "layernorm"),
    *("layer_norm", "ln_post", "post_norm", "embedding_norm"),
)
OTHER_SENSES = re.compile(r"audio|video|speech|generation|vqmodel")


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """The anatomy of a loaded model, or of one on the meta device."""
    base = unwrapped(model)
    family = str(base.config.model_type)
    override = _overrides().get(family, {})
    search = _Search(base)
    language = search.named(override["language"]) if "language" in override else _decoder(base)
    vision = search.named(override["vision"]) if "vision" in override else _encoder(base)
    if vision is None and "language" not in override and base.main_input_name == "pixel_values":
        language, vision = None, base  # an encoder on its own
    if vision is language:
        vision = None
    seen = search.tower(vision, "vision", other=language)
    if seen is not None and override.get("vision_final_norm") is False:
        seen = replace(seen, final_norm=None)
    said = search.tower(language, "language", other=vision)
    joined = search.projector(language, vision, seen, said, override.get("projector"))
    return Anatomy(
        family=family,
        language=said,
        vision=seen,
        projector=joined,
        feature_layer=_feature_layer(base.config, seen),
        image_token=_image_token(base.config),
        answer_token_type=int(override.get("answer_token_type", 0)),
        notes=tuple(override.get("notes", ())),
    )


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The model inside a PEFT wrapper; any other model as it is."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model  # pyright: ignore[reportReturnType]


@cache
def _overrides() -> dict[str, Any]:
    return tomllib.loads(files("glasshouse.model").joinpath("overrides.toml").read_text("utf-8"))


def _decoder(model: PreTrainedModel) -> nn.Module | None:
    decoder: Any = model
    while True:  # a tower may itself be a model with a head, whose decoder is what we want
        inner = decoder.get_decoder() if hasattr(decoder, "get_decoder") else decoder
        if inner is decoder or inner is None:
            return decoder
        decoder = inner


def _encoder(model: PreTrainedModel) -> nn.Module | None:
    encoder = model.get_encoder("image")
    return None if encoder is model or encoder is None or encoder is model.base_model else encoder


class _Search:
    """One model's modules by path."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.paths: dict[nn.Module, str] = {module: path for path, module in model.named_modules()}

    def named(self, path: str | bool) -> nn.Module | None:
        return self.model.get_submodule(path) if isinstance(path, str) else None

    def tower(self, root: nn.Module | None, part: str, other: nn.Module | None) -> Tower | None:
        if root is None:
            return None
        config = self._config(root, part)
        blocks = self._blocks(root, config, other)
        width = self._width(config, blocks)
        if not blocks and part == "language":
            return None
        return Tower(
            path=self.paths[root],
            kind=type(root).__name__,
            width=width,
            layers=tuple(read_layer(block, self.paths, width, config) for block in blocks),
            final_norm=self._final_norm(root, part, blocks, width),
            unembedding=self._unembedding(root, part),
        )

    def _config(self, root: nn.Module, part: str) -> PreTrainedConfig:
        own = getattr(root, "config", None)
        if isinstance(own, PreTrainedConfig):
            inner = own.get_text_config(decoder=True) if part == "language" else getattr(own, "vision_config", own)
            return inner if isinstance(inner, PreTrainedConfig) else own
        config = self.model.config
        return config.get_text_config(decoder=True) if part == "language" else getattr(config, "vision_config", config)

    def _blocks(self, root: nn.Module, config: PreTrainedConfig, other: nn.Module | None) -> list[nn.Module]:
        lists = [found for found in breadth_first(root, nn.ModuleList, skip=other) if len(found)]
        lists = [found for found in lists if any(holds_linear(member) for member in found)]
        depths = {getattr(config, name, None) for name in DEPTHS}
        for found in lists:
            if len(found) in depths:
                return list(found)
        return list(lists[0]) if lists and not _nested(lists[0]) else []

    def _width(self, config: PreTrainedConfig, blocks: list[nn.Module]) -> int:
        named = [getattr(config, name, None) for name in WIDTHS]
        widths = [width for width in named if isinstance(width, int)]
        outs = {sizes[1] for block in blocks[:1] for m in block.modules() if (sizes := linear_sizes(m))}
        fitting = [width for width in widths if width in outs]
        return (fitting or widths or [0])[0]

    def _final_norm(self, root: nn.Module, part: str, blocks: list[nn.Module], width: int) -> str | None:
        """The norm after the last block: a norm of the stream's width beside the list of blocks, or one floor above
        it."""
        if not blocks:
            return None
        holder = self.paths[blocks[0]].rsplit(".", 2)[0] if "." in self.paths[blocks[0]] else ""
        while True:
            owner = self.model.get_submodule(holder)
            for name, child in owner.named_children():
                if name in (FINAL_NORMS if part == "language" else FINAL_NORMS[:-1]) and _norm_width(child) in (
                    width,
                    None,
                ):
                    return self.paths[child]
            if owner is root or not holder:
                return None
            holder = holder.rpartition(".")[0]

    def _unembedding(self, root: nn.Module, part: str) -> str | None:
        """The output embeddings of the model, or of whatever between it and the decoder has them."""
        names = self.paths[root].split(".") if part == "language" else []
        for depth in range(len(names) + 1 if part == "language" else 0):
            owner = self.model.get_submodule(".".join(names[:depth]))
            head = owner.get_output_embeddings() if isinstance(owner, PreTrainedModel) else None
            if head in self.paths:
                return self.paths[head]
        return None

    def projector(
        self,
        language: nn.Module | None,
        vision: nn.Module | None,
        seen: Tower | None,
        said: Tower | None,
        override: Any,
    ) -> Projector | None:
        if override is False:
            return None
        if override:
            named = {path: module for module, path in self.paths.items()}
            return self._projector([named[path] for path in override if path in named])
        if language is None or vision is None or said is None:
            return None
        between = self._between(language, vision) or (self._tail(vision, seen, said.width) if seen else [])
        return self._projector(between)

    def _between(self, language: nn.Module, vision: nn.Module) -> list[nn.Module]:
        """Children of the module that holds both towers, which are neither and end in the language's width."""
        holder = self.paths[vision].rpartition(".")[0]
        while holder and not self._holds(holder, language):
            holder = holder.rpartition(".")[0]
        heads = {self.model.get_output_embeddings(), self.model.get_input_embeddings()}
        found: list[nn.Module] = []
        for child in self.model.get_submodule(holder).children():
            inside = set(child.modules())
            apart = language not in inside and vision not in inside and child not in heads
            if (
                apart
                and not OTHER_SENSES.search(self.paths[child])
                and not isinstance(child, nn.Embedding)
                and _multiplies(child)
            ):
                found.append(child)
        return found

    def _holds(self, holder: str, module: nn.Module) -> bool:
        return self.paths[module].startswith(holder + ".")

    def _tail(self, vision: nn.Module, seen: Tower, width: int) -> list[nn.Module]:
        """What the vision tower does after its blocks, when it ends in the language's width (a patch merger)."""
        blocks = [self.model.get_submodule(block.path) for block in seen.layers]
        inside = {m for block in blocks for m in block.modules()}
        ends: list[nn.Module] = []
        for child in vision.children():
            if any(block in set(child.modules()) for block in blocks) or isinstance(child, nn.ModuleList):
                continue
            layers = [sizes for m in linear_layers(child) if m not in inside and (sizes := linear_sizes(m))]
            if layers and layers[-1][1] == width:
                ends.append(child)
        return ends[-1:]

    def _projector(self, modules: list[nn.Module]) -> Projector | None:
        if not modules:
            return None
        linears = [layer for module in modules for layer in linear_layers(module) if linear_sizes(layer)]
        sizes = linear_sizes(linears[-1]) if len(linears) > 1 else None
        paths, names = (tuple(self.paths[module] for module in found) for found in (modules, linears))
        mixes = any(is_mixer(inner, self.paths[inner]) for module in modules for inner in module.modules())
        return Projector(paths, names, sizes[0] if sizes else None, mixes)


def _multiplies(module: nn.Module) -> bool:
    """Holds a matrix: a linear layer, or a bare parameter used as one."""
    return any(parameter.ndim >= 2 for parameter in module.parameters())


def _nested(modules: nn.ModuleList) -> bool:
    """Stages of blocks rather than blocks: a hierarchical encoder has no one list."""
    return any(isinstance(inner, nn.ModuleList) for member in modules for inner in member.modules())


def _norm_width(module: nn.Module) -> int | None:
    weight = getattr(module, "weight", None)
    return int(weight.shape[-1]) if weight is not None else None


def _feature_layer(config: PreTrainedConfig, seen: Tower | None) -> int | None:
    chosen = getattr(config, "vision_feature_layer", None)
    if seen is None or not seen.layers or not isinstance(chosen, int):
        return None
    # hidden_states[0] is what enters the first block, so the entry -2 is left by block depth - 2.
    return chosen % (len(seen.layers) + 1) - 1


def _image_token(config: PreTrainedConfig) -> int | None:
    for name in ("image_token_id", "image_token_index"):
        token = getattr(config, name, None)
        if isinstance(token, int):
            return token
    return None
