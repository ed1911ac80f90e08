"""Is this folder safe and whole? Looked at before anything is loaded, because a suspect model is hostile input.

safetensors only: a pickle can run code when it is read. Every shard must be there and as long as its header says.
Loading must leave no weight to chance: what the checkpoint lacks, transformers would fill with random numbers and a
warning.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from glasshouse.values.errors import BadInput

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def check_folder(folder: Path) -> None:
    """Refuse pickles, missing shards and truncated files, each with its cure."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise BadInput(
                f"{folder}: this is an adapter; open the model it was trained on and add it: --adapter {folder}"
            )
        raise BadInput(f"{folder}: no config.json in this folder; point to a Hugging Face checkpoint")
    tensors = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = _shards(index)
        missing = sorted(named - {file.name for file in tensors})
        if missing:
            raise BadInput(
                f"{folder}: {len(missing)} of {len(named)} shards are missing, first {missing[0]}; download them again"
            )
        tensors = [folder / name for name in sorted(named)]
    if not tensors:
        raise BadInput(f"{folder}: {_no_tensors(folder)}")
    for file in tensors:
        check_file(file)


def check_file(file: Path) -> None:
    """Refuse a safetensors file that is truncated or is something else."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError, ValueError) as problem:
        raise BadInput(f"{file}: not a whole safetensors file ({problem}); download it again") from None


def _shards(index: Path) -> set[str]:
    try:
        named = json.loads(index.read_text("utf-8"))["weight_map"].values()
        return {str(name) for name in named}
    except (ValueError, KeyError, AttributeError):
        raise BadInput(f"{index}: not a readable index of shards; download it again") from None


def _no_tensors(folder: Path) -> str:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        return (
            f"only pickle weights ({pickles[0]}), which can run code when read; "
            "convert them to safetensors in a sandbox"
        )
    return "no safetensors weights in this folder; only the anatomy can be drawn: glasshouse anatomy"


def read_config(source: str, *, revision: str | None, download: bool, remote_code: bool) -> PreTrainedConfig:
    """The configuration of a folder or a hub name; the network only if asked for."""
    try:
        return AutoConfig.from_pretrained(
            source, revision=revision, local_files_only=not download, trust_remote_code=remote_code
        )
    except (OSError, ValueError, KeyError) as problem:
        raise BadInput(f"{source}: {_why_no_config(source, str(problem), download, remote_code)}") from None


def _why_no_config(source: str, problem: str, download: bool, remote_code: bool) -> str:
    if "trust_remote_code" in problem and not remote_code:
        return "needs code from its repository, which is not run unless you say so: --remote-code"
    if Path(source).exists() or download:
        return f"its configuration cannot be read ({problem.splitlines()[0]})"
    return "neither a folder nor in the local cache; to fetch it from the hub add --download"


def auto_class(config: PreTrainedConfig) -> Any:
    """The transformers class that opens this kind of model."""
    if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForCausalLM
    return AutoModel


def on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    """The model without weights, for its anatomy."""
    with torch.device("meta"):
        try:
            return auto_class(config).from_config(config)
        except (ImportError, ValueError, KeyError) as problem:
            raise BadInput(
                f"{config.model_type}: cannot be built from its configuration ({str(problem).splitlines()[0]})"
            ) from None


def load_model(source: str, config: PreTrainedConfig, options: Mapping[str, Any]) -> PreTrainedModel:
    """The weights, from safetensors only, none of them left to chance."""
    try:
        model, info = auto_class(config).from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError, ImportError) as problem:
        line = next((line for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
        raise BadInput(
            f"{source}: cannot be loaded ({line}); is every file of this checkpoint there and unmodified?"
        ) from None
    if info["mismatched_keys"]:
        name, found, wanted = sorted(info["mismatched_keys"])[0]
        raise BadInput(
            f"{source}: {name} has shape {tuple(found)}, its configuration says {tuple(wanted)}; "
            "the two do not belong together"
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise BadInput(
            f"{source}: {len(missing)} weights are missing, first {missing[0]}; they would be random, "
            "so the model is refused"
        )
    return model.eval()


def load_processor(name: str, hub: Mapping[str, Any], *, sees: bool) -> Any:
    """The processor, tokenizer or image processor the folder has. One that drops the images of a model that sees is
    refused."""
    problems: list[str] = []
    for auto in (AutoProcessor, AutoTokenizer, AutoImageProcessor):
        try:
            found = auto.from_pretrained(name, **hub)
        except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as problem:
            problems.append(str(problem).splitlines()[0] if str(problem) else type(problem).__name__)
            continue
        if sees and not hasattr(found, "image_processor") and not hasattr(found, "size"):
            raise BadInput(
                f"{name}: its processor came without image processing; "
                "this family needs torchvision: pip install torchvision"
            )
        return found
    raise BadInput(
        f"{name}: no processor or tokenizer could be loaded ({problems[0]}); "
        "add its files to the folder or pass processor="
    )


def with_adapter(model: PreTrainedModel, folder: Path) -> Any:
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError:
        raise BadInput("an adapter needs peft: pip install 'glasshouse[adapters]'") from None
    if not (folder / "adapter_config.json").is_file():
        raise BadInput(f"{folder}: no adapter_config.json, so this is not a PEFT adapter")
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise BadInput(f"{folder}: no adapter_model.safetensors; pickle adapters are not read, convert it in a sandbox")
    check_file(weights)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
        with safe_open(weights, framework="pt") as opened:
            missing = sorted(set(get_peft_model_state_dict(adapted)) - set(opened.keys()))
        if missing:
            raise BadInput(f"{folder}: {len(missing)} of the adapter's weights are missing, first {missing[0]}")
        return adapted
    except (ValueError, RuntimeError, KeyError) as problem:
        raise BadInput(f"{folder}: this adapter does not fit the model ({str(problem).splitlines()[0]})") from None
