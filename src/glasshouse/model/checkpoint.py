"""Is this folder safe and whole? Looked at before anything is loaded, because a suspect model is hostile input.

safetensors only: a pickle can run code when it is read. Every shard must be there and as long as its header says.
Loading must leave no weight to chance: what the checkpoint lacks, transformers would fill with random numbers and a
warning.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from glasshouse.data.strangers import strangers_files
from glasshouse.model.configs import auto_class
from glasshouse.values.errors import BadInput

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PLAIN_SETTINGS = {
    *("transformers_version", "_from_model_config", "use_cache", "output_attentions", "output_hidden_states"),
    *("do_sample", "temperature", "top_p", "top_k", "min_p", "max_length", "max_new_tokens"),
}
INDEX = "model.safetensors.index.json"


def check_folder(folder: Path) -> None:
    """Refuse pickles, missing shards and truncated files, each with its fix."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise BadInput(f"{folder}: this is an adapter, which is no base; give the folder of a whole model")
        raise BadInput(f"{folder}: no config.json in this folder; point to a Hugging Face checkpoint")
    tensors = sorted(folder.glob("*.safetensors"))
    if (folder / INDEX).is_file():
        shards = _shards(folder / INDEX)
        missing = sorted(shards - {file.name for file in tensors})
        if missing:
            raise BadInput(
                f"{folder}: {len(missing)} of {len(shards)} shards are missing, first {missing[0]}; download them again"
            )
        tensors = [folder / name for name in sorted(shards)]
    if not tensors:
        raise BadInput(f"{folder}: {_no_tensors(folder)}")
    for file in tensors:
        check_file(file)
    check_generation(folder)


def check_file(file: Path) -> None:
    """Refuse a safetensors file that is truncated or is something else."""
    with strangers_files(file, "not a whole safetensors file", "download it again"), safe_open(file, framework="pt"):
        pass


def is_cached(name: str, revision: str | None) -> bool:
    """Whether the configuration of a hub model lies in the local cache."""
    try:
        return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    except HFValidationError:  # no name that the hub could have
        return False


def _shards(index: Path) -> set[str]:
    with strangers_files(index, "not a readable index of shards", "download it again"):
        shards = json.loads(index.read_text("utf-8"))["weight_map"].values()
        return {str(name) for name in shards}


def _no_tensors(folder: Path) -> str:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        return (
            f"only pickle weights ({pickles[0]}), which can run code when read; "
            "convert them to safetensors in a sandbox"
        )
    return "no safetensors weights in this folder; only the anatomy can be drawn: glasshouse anatomy"


def check_generation(folder: Path) -> None:
    """Refuse generation settings that cannot be read. transformers would leave them out without a word, so that the
    model examined would generate differently from the model its users run."""
    file = folder / "generation_config.json"
    if file.is_file():
        with strangers_files(file, "these generation settings cannot be read", "download the file again or remove it"):
            settings = json.loads(file.read_text("utf-8"))
            if not isinstance(settings, dict):
                raise TypeError(f"a JSON object is needed, not {type(settings).__name__}")


def generates_plainly(model: PreTrainedModel) -> bool:
    """Whether its generation settings only name tokens and ways of sampling, which greedy answers do not use."""
    settings = getattr(model, "generation_config", None)
    entries = settings.to_diff_dict() if settings is not None else {}
    tokens = {name: value for name, value in entries.items() if name.endswith("_token_id")}
    ids = [token for value in tokens.values() for token in (value if isinstance(value, list) else [value])]
    return set(entries) - set(tokens) <= PLAIN_SETTINGS and all(isinstance(token, int) for token in ids)


def load_model(source: str, config: PreTrainedConfig, options: Mapping[str, Any]) -> PreTrainedModel:
    """The weights, from safetensors only, none of them left to chance."""
    fix = "is every file of this checkpoint there and unmodified?"
    with strangers_files(source, "cannot be loaded", fix):
        model, info = auto_class(config).from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    if info["mismatched_keys"]:
        name, stored, configured = sorted(info["mismatched_keys"])[0]
        raise BadInput(
            f"{source}: {name} has shape {tuple(stored)}, its configuration says {tuple(configured)}; "
            "the two do not belong together"
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise BadInput(
            f"{source}: {len(missing)} weights are missing, first {missing[0]}; they would be random, "
            "so the model is refused"
        )
    return model.eval()
