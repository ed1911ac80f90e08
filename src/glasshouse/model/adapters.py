"""How is a stranger's PEFT adapter put on a model? As suspiciously as the model itself was opened.

An adapter's configuration can name other repositories and Python modules; both are refused. Its weights come from its
one safetensors file, and every one of them must be there.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from glasshouse.data.strangers import strangers_files
from glasshouse.model.checkpoint import check_file
from glasshouse.values.errors import BadInput

FIX = "was it trained on this model, and is every file of it there and unmodified?"


def with_adapter(model: PreTrainedModel, folder: Path) -> Any:
    """The model with the adapter of a folder."""
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
    _check_config(folder)
    with strangers_files(folder, "this adapter does not fit the model", FIX), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # refused below
        # Created without memory, so that only what the file holds is ever allocated.
        adapted = PeftModel.from_pretrained(model, str(folder), low_cpu_mem_usage=True)
        # The base's embeddings are not the adapter's; looking for them asks the hub for the base's configuration.
        state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        with safe_open(weights, framework="pt") as opened:
            missing = sorted(set(state) - set(opened.keys()))
    if missing:
        raise BadInput(f"{folder}: {len(missing)} of the adapter's weights are missing, first {missing[0]}; {FIX}")
    return adapted


def _check_config(folder: Path) -> None:
    """Refuse what makes peft read other adapters or import modules by name."""
    file = folder / "adapter_config.json"
    with strangers_files(file, "this adapter's configuration cannot be read", "download it again"):
        settings = json.loads(file.read_text("utf-8"))
        kind = str(settings.get("peft_type"))
    if kind.upper() == "XLORA":
        raise BadInput(f"{file}: an X-LoRA adapter loads further adapters by name; open each of those as --adapter")
    if settings.get("megatron_config"):
        raise BadInput(f"{file}: megatron_config makes peft import a module that the file names; remove the entry")
