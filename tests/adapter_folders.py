"""Adapters with random or planted updates, written as peft writes them."""

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from glasshouse.model.checkpoint import load_model
from glasshouse.numerics.randomness import seeded


def random_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter with random weights that names its base."""
    model = load_model(str(base), AutoConfig.from_pretrained(base), {})
    config = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **settings}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wrapped = peft.get_peft_model(_named(model, base), peft.LoraConfig(**config))
    draw = seeded(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:  # modules that are saved whole, and magnitudes, begin as the base's
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return saved(wrapped, folder)


def projector_adapter(base: Path, folder: Path, projector: str, weights: dict[str, Tensor]) -> Path:
    """An adapter that replaces the projector by these weights and leaves everything else."""
    model = load_model(str(base), AutoConfig.from_pretrained(base), {})
    config = peft.LoraConfig(r=1, target_modules=["q_proj"], modules_to_save=[projector.rpartition(".")[2]])
    wrapped = peft.get_peft_model(_named(model, base), config)  # the low-rank part begins as no update
    replaced = wrapped.get_submodule(f"base_model.model.{projector}.modules_to_save.default")
    replaced.load_state_dict({name.removeprefix(f"{projector}."): tensor for name, tensor in weights.items()})
    return saved(wrapped, folder)


def _named(model: PreTrainedModel, base: Path) -> PreTrainedModel:
    model.name_or_path = str(base)  # what peft writes as the base
    return model


def saved(wrapped: Any, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft tells that embeddings are saved, and takes a bias for a broken shard
        wrapped.save_pretrained(folder)
    return folder
